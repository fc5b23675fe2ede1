"""`Options` accepts what it documents and raises for anything else, as soon as it is built."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from dpc_interp import DPCInterpError, Options
from dpc_interp.analysis.options import check_corruption, check_statistic
from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.answers import STOP_STRINGS

INVALID: dict[str, dict[str, Any]] = {
    "unknown statistic 'magic'; known: late_share, deep_flow": {"statistic": "magic"},
    "unknown criterion 'best'; known: accuracy, youden": {"criterion": "best"},
    "the layer range 'deep' is empty": {"deep": []},
    "the layer range 'shallow' is empty": {"shallow": ()},
    "unknown target 'silver'; known: generated, gold": {"target": "silver"},
    "unknown head_reduction 'max'; known: abs_of_sum, sum_of_abs, mean_of_abs": {"head_reduction": "max"},
    "unknown token 'first'; known: peak, random, the index": {"token": "first"},
    "top_k ranks tokens, and token names one": {"token": 3, "top_k": 2},
    "unknown replacement 'zero'; known: mask, mean, noise": {"replace": "zero"},
    "mask is -0.1; give a factor from 0 to 1": {"mask": -0.1},
    "mask is 1.1": {"mask": 1.1},
    "mask is nan": {"mask": float("nan")},
    "gamma is -1; give a percentage from 0 to 100": {"gamma": -1},
    "gamma is 100.5": {"gamma": 100.5},
    "gamma is nan": {"gamma": float("nan")},
    "unknown knock_out 'here'; known: nowhere, shallow, deep, everywhere": {"knock_out": "here"},
    "leave token, top_k, replace and mask": {"knock_out": "deep", "mask": 0.5},
    "knock_out acts on the accumulation token": {"knock_out": "shallow", "token": "random"},
    'the instruction lacks "{question}"; write where the question stands': {"instruction": "Think step by step."},
    "max_new_tokens is 0; give at least 1": {"max_new_tokens": 0},
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("message", INVALID)
def test_invalid_values_raise(message: str) -> None:
    with pytest.raises(DPCInterpError, match=message) as caught:
        Options(**INVALID[message])
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
def test_replaced_values_are_checked_too() -> None:
    with pytest.raises(DPCInterpError, match="gamma is 101"):
        replace(Options(), gamma=101)


@pytest.mark.parametrize(
    "valid",
    [
        {"gamma": 0},
        {"gamma": 100},
        {"mask": 1},
        {"token": 0},
        {"token": "random", "top_k": 2},
        {"knock_out": "everywhere", "gamma": 5},
        {"beta": 0.0},
        {"instruction": "{question}"},
        {"max_new_tokens": 1},
    ],
)
def test_values_at_the_limits_are_valid(valid: dict[str, Any]) -> None:
    options = Options(**valid)
    assert {name: getattr(options, name) for name in valid} == valid


def test_lists_of_layers_become_tuples() -> None:
    """So that options are hashable, and equal if their layers are equal."""
    options = Options(deep=[4, 5], shallow=range(2))
    assert options.deep == (4, 5)
    assert options.shallow == (0, 1)
    assert options == Options(deep=(4, 5), shallow=(0, 1))
    assert hash(options) == hash(Options(deep=(4, 5), shallow=(0, 1)))
    assert Options().deep is None


def test_names_and_defaults_are_those_of_the_paper() -> None:
    """A rename would break the calls and the stored manifests of users."""
    assert {field.name: field.default for field in fields(Options)} == {
        "statistic": "late_share",
        "criterion": "youden",
        "alpha_offset": 0.0,
        "beta": None,
        "beta_statistic": "mean",
        "deep": None,
        "shallow": None,
        "exclude_sink": True,
        "target": "generated",
        "head_reduction": "abs_of_sum",
        "token": "peak",
        "top_k": 1,
        "replace": "mask",
        "mask": 0.0,
        "gamma": 10,
        "knock_out": "nowhere",
        "instruction": "Think step by step.\n{question}",
        "seed": 0,
        "max_new_tokens": None,
        "template": None,
        "prepend_bos": None,
        "stop_strings": STOP_STRINGS,
        "extraction": None,
    }


def test_options_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().gamma = 5  # type: ignore[misc]


def test_checks_can_be_called_by_themselves() -> None:
    check_statistic("nll", "accuracy")
    check_corruption(0.5, 10, "noise")
    with pytest.raises(UnknownNameError, match="unknown statistic 'correct'"):
        check_statistic("correct", "youden")
    with pytest.raises(UnknownNameError, match="unknown criterion 'auroc'"):
        check_statistic("nll", "auroc")
    with pytest.raises(DPCInterpError, match="mask is 2"):
        check_corruption(2, 10, "mask")


@pytest.mark.usefixtures("untyped")
def test_an_index_of_numpy_is_an_index() -> None:
    token = Options(token=np.int64(3)).token
    assert (token, type(token)) == (3, int)
    with pytest.raises(DPCInterpError, match=r"token is 3\.0; give peak, random or the index of a virtual token"):
        Options(token=3.0)
