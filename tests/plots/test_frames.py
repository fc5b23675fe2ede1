"""Checks and selections of frames, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import (
    LABELS,
    by_instance,
    check_finite,
    check_frame,
    check_outcome,
    label,
    layer_span,
    matrix,
    select_layers,
)


def _layers(*layers: int) -> pd.DataFrame:
    """Two rows a layer, in reverse order."""
    return pd.DataFrame({"layer": [layer for layer in reversed(layers) for _ in range(2)]})


def test_a_missing_column_is_named_with_the_present_ones() -> None:
    frame = pd.DataFrame({"layer": [0], "value": [1.0]})
    check_frame(frame, "flow", ["value", "layer"])
    with pytest.raises(DPCInterpError, match=r"^the flow frame lacks the column 'step'; it has: layer, value$"):
        check_frame(frame, "flow", ["layer", "step"])
    with pytest.raises(DPCInterpError, match=r"it has: none$"):
        check_frame(pd.DataFrame(), "flow", ["layer"])
    with pytest.raises(
        DPCInterpError, match="the flow frame is empty; it needs rows with the columns 'layer', 'value'"
    ):
        check_frame(frame.iloc[:0], "flow", ["layer", "value"])


@pytest.mark.parametrize("correct", [["yes", "no"], [1, 0], [True, None], [1.0, 0.0]])
def test_an_outcome_must_be_boolean(correct: list[object]) -> None:
    with pytest.raises(DPCInterpError, match="column 'correct' must hold True or False in every row"):
        check_outcome(pd.DataFrame({"correct": correct}), "flow")
    with pytest.raises(DPCInterpError, match="must hold True or False"):
        check_outcome(pd.DataFrame({"correct": pd.array([True, None], dtype="boolean")}), "flow")


def test_both_outcomes_are_required_only_on_request() -> None:
    frame = pd.DataFrame({"correct": [False, False]})
    check_outcome(frame, "statistics")
    check_outcome(pd.DataFrame({"correct": [False, True]}), "statistics", both=True)
    with pytest.raises(DPCInterpError, match="holds only False; both outcomes are needed"):
        check_outcome(frame, "statistics", both=True)


def test_values_that_are_not_finite_are_counted() -> None:
    frame = pd.DataFrame({"low": [0.0, 1.0, 2.0], "high": [np.inf, np.nan, 2.0]})
    check_finite(frame, "summary", ["low"])
    with pytest.raises(DPCInterpError, match="the summary frame's column 'high' holds 2 values that are not finite"):
        check_finite(frame, "summary", ["low", "high"])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((0,), [0]),
        ((0, 1), [1]),
        ((0, 1, 2, 3, 4), [4]),
        ((0, 1, 2, 3, 4, 5), [4, 5]),
        ((2, 5, 8, 11, 14, 17), [14, 17]),
    ],
)
def test_the_default_is_the_last_third_of_the_layers_in_the_frame(layers: tuple[int, ...], expected: list[int]) -> None:
    rows, chosen = select_layers(_layers(*layers), "tokens", None)
    assert chosen == expected
    assert sorted(rows["layer"]) == sorted(expected * 2)


def test_chosen_layers_are_sorted_and_distinct_and_rows_remain_in_order() -> None:
    rows, chosen = select_layers(_layers(0, 1, 2, 3), "tokens", [3, 1, 3])
    assert chosen == [1, 3]
    assert rows["layer"].tolist() == [3, 3, 1, 1]


def test_unknown_layers_and_no_layers_raise() -> None:
    with pytest.raises(DPCInterpError, match=r"the tokens frame's column 'layer' lacks \[4, 7\]; it has: \[0, 1\]"):
        select_layers(_layers(0, 1), "tokens", [7, 1, 4])
    with pytest.raises(
        DPCInterpError, match=r"no layers to plot; name at least one layer of the tokens frame: \[0, 1\]"
    ):
        select_layers(_layers(0, 1), "tokens", [])


@pytest.mark.parametrize(
    ("layers", "text"),
    [([5], "layer 5"), ([4, 5], "layers 4–5"), ([4, 5, 6, 7], "layers 4–7"), ([1, 4, 6], "layers 1, 4, 6")],
)
def test_layers_are_written_as_a_range_or_a_list(layers: list[int], text: str) -> None:
    assert layer_span(layers) == text


def test_by_instance_is_the_mean_of_each_instance_and_nan_where_it_has_no_rows() -> None:
    frame = pd.DataFrame(
        {"instance": ["b", "a", "a", "a"], "step": pd.array([0, 0, 0, 1], "Int64"), "value": [5.0, 1.0, 3.0, 7.0]}
    )
    table = by_instance(frame, "step")
    assert (list(table.index), list(table.columns)) == (["a", "b"], [0, 1])
    np.testing.assert_array_equal(matrix(table), [[2.0, 7.0], [5.0, np.nan]])
    assert matrix(table.astype("Float32")).dtype == np.float64


def test_every_trigger_statistic_has_a_label_and_other_columns_are_written_in_words() -> None:
    assert set(LABELS) == set(TRIGGER_STATISTICS)
    assert label("late_share") == "late share $R$"
    assert label("head_reduction") == "head reduction"
