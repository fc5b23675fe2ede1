"""Thirds of the layers, and ranges as text."""

from __future__ import annotations

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.analysis.layers import check_layers, deep_layers, layer_range, shallow_layers


@pytest.mark.parametrize(
    ("n_layers", "shallow", "deep"),
    [
        (1, (0,), (0,)),
        (2, (0,), (1,)),
        (3, (0,), (2,)),
        (6, (0, 1), (4, 5)),
        (8, (0, 1), (6, 7)),
        (32, range(10), range(22, 32)),
    ],
)
def test_layers_are_the_first_and_the_last_third(n_layers: int, shallow, deep) -> None:
    assert shallow_layers(n_layers) == tuple(shallow)
    assert deep_layers(n_layers) == tuple(deep)


def test_known_layers_are_returned_as_a_tuple() -> None:
    assert check_layers([0, 2], 3) == (0, 2)
    assert check_layers([], 3) == ()


@pytest.mark.parametrize(("layers", "unknown"), [([0, 3], 3), ([-1], -1)])
def test_unknown_layers_raise(layers: list[int], unknown: int) -> None:
    with pytest.raises(DPCInterpError, match=f"there is no layer {unknown}; this model has layers 0 to 2"):
        check_layers(layers, 3)


@pytest.mark.parametrize(
    ("layers", "text"), [((4,), "4"), ((4, 5), "4-5"), ((1, 2, 3), "1-3"), ((0, 2), "0,2"), ((2, 1), "2,1"), ((), "")]
)
def test_range_as_text(layers: tuple[int, ...], text: str) -> None:
    assert layer_range(layers) == text


def test_range_with_other_separators() -> None:
    assert layer_range((4, 5), dash="–") == "4–5"
    assert layer_range((0, 2), comma=" and ") == "0 and 2"
