"""Sweeps are grids of the cells they describe, and select option values on validation problems only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpc_interp import (
    CorruptionPlan,
    DPCInterpError,
    Options,
    Problem,
    SoftPrompt,
    accumulation_peaks,
    analyse,
    corruption_variants,
    evaluate,
    generate,
    option_sensitivity,
    plan_random,
    single_tokens,
)
from dpc_interp.evaluation.sweeps import SWEPT_VALUES, VARIANTS, select_on_validation
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.usefixtures("text_is_the_answer")


def test_variants_are_evaluated_with_their_options(
    grid_arguments: dict[str, Any],
    model: HookedModel,
    reported: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
    scaled_attention,
) -> None:
    variants = {"peak": {}, "random": {"token": "random"}, "two": {"top_k": 2, "replace": "noise"}}
    variants |= {"hidden": {"knock_out": "deep"}}
    contexts = {"half": scaled_attention(1, 0.5)}
    rows = corruption_variants(**grid_arguments, methods=["always"], variants=variants, contexts=contexts, gamma=25)
    assert rows["variant"].tolist() == ["peak", "random", "two", "hidden", "half"]
    assert rows["method"].tolist() == ["always", "always", "always", "always", "half"]
    analysis = analyse(model, generate(model, reported, prompt, **decoding), prompt, progress=False)
    ids = [problem.id for problem in reported]
    peaks = accumulation_peaks(analysis.accumulation)["peak_token"][ids].tolist()
    plans = plan_random(ids, prompt.n_virtual, 0, 25, peaks=peaks)
    outcomes = [run.correct for run in generate(model, reported, prompt, plans=plans, **decoding)]
    assert rows.set_index("variant").loc["random", "accuracy"] == np.mean(outcomes)


def test_default_variants_and_values_are_options() -> None:
    """Every variant can be built, and only the accumulation token leaves all options at their defaults."""
    assert [name for name, changes in VARIANTS.items() if Options(**changes) == Options()] == ["accumulation token"]
    assert all(hasattr(Options(), option) for option in SWEPT_VALUES)


def test_single_tokens_are_masked_one_by_one(
    grid_arguments: dict[str, Any],
    model: HookedModel,
    reported: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
) -> None:
    del grid_arguments["validation"]
    rows = single_tokens(**grid_arguments, gamma=25)
    assert rows["virtual_token"].tolist() == [0, 1, 2, 3, 4]
    before = generate(model, reported, prompt, **decoding)
    for row in rows.itertuples():
        plan = CorruptionPlan((row.virtual_token,), 0.0, 25)
        after = generate(model, reported, prompt, plans=[plan] * len(reported), **decoding)
        change = np.mean([run.correct for run in after]) - np.mean([run.correct for run in before])
        assert row.difference == pytest.approx(change)
        assert row.difference_low <= row.difference <= row.difference_high
    accumulation = analyse(model, before, prompt, progress=False).accumulation
    shallow = accumulation[accumulation["layer"] == 0]
    shares = shallow["value"] / shallow.groupby("instance")["value"].transform("sum")
    np.testing.assert_allclose(rows["accumulation"], shares.groupby(shallow["virtual_token"]).mean(), rtol=1e-4)
    counts = accumulation_peaks(accumulation)["peak_token"].value_counts(normalize=True)
    assert rows.set_index("virtual_token")["peak_share"].loc[counts.index].tolist() == pytest.approx(counts.tolist())
    assert rows["peak_share"].sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def sensitivity(
    model: HookedModel,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
) -> pd.DataFrame:
    values = {
        "gamma": [0, 25],
        "beta": [None, 1.0],
        "shallow": ["third", "all", (1, 2)],
        "target": ["generated", "gold"],
    }
    arguments = {"values": values, "validation": {"story": validation}, **decoding}
    return option_sensitivity(model, reported, prompt, ["always", "dpc"], **arguments)


def test_one_option_is_changed_at_a_time_on_both_splits(sensitivity: pd.DataFrame) -> None:
    option = sensitivity["option"]
    assert list(sensitivity["value"][option == "gamma"].unique()) == ["10", "0", "25"], "the default is measured too"
    assert list(sensitivity["value"][option == "shallow"].unique()) == ["third", "all", "1-2"]
    splits = sensitivity.groupby(["option", "value", "method"])["split"].apply(set)
    assert (splits == {"test", "validation"}).all()
    defaults = {"gamma": "10", "beta": "own", "shallow": "third", "target": "generated"}
    for name, value in defaults.items():
        assert set(sensitivity.loc[(option == name) & sensitivity["default"], "value"]) == {value}
    assert set(sensitivity.loc[option != "gamma", "gamma"]) == {10}
    n_outcomes = sensitivity[sensitivity["default"]].groupby(["split", "method"])["accuracy"].nunique()
    assert (n_outcomes == 1).all(), "the default is the same cell whatever option is swept"


def test_ranges_and_units_are_resolved(
    sensitivity: pd.DataFrame, model: HookedModel, validation: list[Problem], prompt: SoftPrompt, decoding
) -> None:
    """Of three layers the third is one; beta 1.0 is the mean flow into validation rationales in the deep layer."""
    rows = sensitivity.set_index(["option", "value"])
    assert {value: rows.loc[("shallow", value), "shallow"].iloc[0] for value in ("third", "all", "1-2")} == {
        "third": "0",
        "all": "0-2",
        "1-2": "1-2",
    }
    assert rows.loc[("beta", "own"), "beta"].isna().all()
    tokens = analyse(model, generate(model, validation, prompt, **decoding), prompt, progress=False).tokens
    unit = tokens.loc[tokens["layer"] == 2, "value"].mean()
    assert rows.loc[("beta", "1"), "beta"].to_numpy() == pytest.approx(unit, rel=1e-4)


def test_sensitivity_rows_are_those_of_evaluate(
    sensitivity: pd.DataFrame,
    model: HookedModel,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
) -> None:
    options = {"shallow": [1, 2], **decoding}
    single = evaluate(model, reported, prompt, ["dpc"], validation=validation, **options)
    rows = sensitivity[(sensitivity["value"] == "1-2") & (sensitivity["method"] == "dpc")].set_index("split")
    expected = single.summary.set_index("method").loc["dpc"]
    assert rows.loc["test", expected.index[1:]].to_dict() == pytest.approx(expected.iloc[1:].to_dict())
    on_validation = evaluate(model, validation, prompt, ["dpc"], rule=single.rule, **options)
    expected = on_validation.summary.set_index("method").loc["dpc"]
    assert rows.loc["validation", expected.index[1:]].to_dict() == pytest.approx(expected.iloc[1:].to_dict())


def test_selection_never_reads_test_rows(sensitivity: pd.DataFrame) -> None:
    test = sensitivity["split"] == "test"
    shuffled = sensitivity.copy()
    outcomes = ["accuracy", "difference", "difference_low", "difference_high", "fixed", "broken"]
    shuffled.loc[test, outcomes] = sensitivity.loc[test, outcomes].sample(frac=1, random_state=0).to_numpy()
    assert not shuffled["accuracy"].equals(sensitivity["accuracy"])
    pd.testing.assert_series_equal(select_on_validation(shuffled), sensitivity["selected"], check_names=False)
    per_option = sensitivity[sensitivity["selected"]].groupby(["option", "method", "split"]).size()
    assert (per_option == 1).all()


def sweep_rows(rows: list[tuple[str, str, str, bool, float]]) -> pd.DataFrame:
    """Rows of `option_sensitivity` of one prompt and method."""
    columns = ["option", "value", "split", "default", "accuracy"]
    return pd.DataFrame(rows, columns=columns).assign(model="m", task="t", prompt="p", method="dpc")


def test_the_best_on_validation_is_selected_and_the_default_on_a_tie() -> None:
    rows = sweep_rows(
        [
            ("gamma", "0", "validation", False, 0.5),
            ("gamma", "10", "validation", True, 0.6),
            ("gamma", "20", "validation", False, 0.6),
            ("mask", "0", "validation", True, 0.6),
            ("mask", "0.5", "validation", False, 0.7),
            ("gamma", "0", "test", False, 0.9),
            ("gamma", "10", "test", True, 0.1),
            ("gamma", "20", "test", False, 0.2),
            ("mask", "0", "test", True, 0.9),
            ("mask", "0.5", "test", False, 0.1),
        ]
    )
    chosen = rows[select_on_validation(rows)]
    assert list(zip(chosen["option"], chosen["value"], chosen["split"], strict=True)) == [
        ("gamma", "10", "validation"),
        ("mask", "0.5", "validation"),
        ("gamma", "10", "test"),
        ("mask", "0.5", "test"),
    ]


def test_a_target_that_needs_the_written_solution_is_never_selected() -> None:
    rows = sweep_rows(
        [
            ("target", "generated", "validation", True, 0.5),
            ("target", "gold", "validation", False, 0.9),
            ("target", "generated", "test", True, 0.5),
            ("target", "gold", "test", False, 0.9),
        ]
    )
    assert select_on_validation(rows).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [({"gama": [0]}, "unknown option 'gama'"), ({"deep": ["quarter"]}, "unknown range of layers 'quarter'")],
)
def test_unknown_options_and_ranges_raise(grid_arguments: dict[str, Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(DPCInterpError, match=message):
        option_sensitivity(**grid_arguments, values=values)
