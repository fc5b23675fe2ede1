"""Frames are put into the order and the dtypes of their schema, and those that the package returns have both."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from dpc_interp import (
    Analysis,
    DPCInterpError,
    Results,
    SoftPrompt,
    Transcript,
    TriggerRule,
    analyse,
    evaluate,
    load_problems,
    saliency_sanity,
    sink_controls,
    trigger_statistics,
)
from dpc_interp.analysis.schema import (
    FRAMES,
    STATISTICS,
    TRIGGER_STATISTICS,
    conform,
    in_order_of,
    round_significant,
)
from dpc_interp.models.hooked import HookedModel


def assert_conforms(frame: pd.DataFrame, name: str) -> None:
    """Fail unless the frame has exactly the columns of its schema, in order, with their dtypes."""
    assert frame.columns.tolist() == list(FRAMES[name])
    for column, (dtype, _) in FRAMES[name].items():
        if dtype == "string":
            assert pd.api.types.is_string_dtype(frame[column].dropna()), column
        else:
            assert frame[column].dtype == dtype, column


@pytest.fixture(scope="module")
def runs(written: Callable[..., Transcript]) -> list[Transcript]:
    texts = ["buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", "9 + 8 = 17\n#### 17"]
    return [written(text, name=f"story-{i}") for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def analysis(model: HookedModel, runs: list[Transcript], prompt: SoftPrompt) -> Analysis:
    return analyse(model, runs, prompt, progress=False)


@pytest.fixture(scope="module")
def results(model: HookedModel, prompt: SoftPrompt) -> Results:
    problems, rule = load_problems("story", n=6, max_steps=1), TriggerRule("late_share", 0.5)
    return evaluate(model, problems, prompt, ["always", "dpc"], rule=rule, max_new_tokens=8, progress=False)


def test_conform_orders_and_casts() -> None:
    frame = pd.DataFrame(
        {
            "extra": ["x"],
            "value": np.array([0.5]),
            "step": [None],
            "destination": ["rationale"],
            "source_step": [2.0],
            "source": ["prompt"],
            "layer": np.array([1], dtype=np.int32),
            "instance": ["a"],
        }
    )
    flow = conform(frame, "flow")
    columns = ["instance", "layer", "source", "source_step", "destination", "step", "value", "extra"]
    assert flow.columns.tolist() == columns
    dtypes = flow.dtypes[["layer", "source_step", "step", "value"]].astype(str)
    assert dtypes.tolist() == ["int64", "Int64", "Int64", "float32"]
    assert flow["source_step"].tolist() == [2]
    assert flow["step"].isna().all()
    assert frame.columns[0] == "extra", "the frame that was passed is not changed"


def test_conform_names_the_missing_column() -> None:
    frame = pd.DataFrame({"instance": ["a"], "layer": [0], "value": [0.5]})
    message = "the accumulation frame lacks the column 'virtual_token'; it has: instance, layer, value"
    with pytest.raises(DPCInterpError, match=message):
        conform(frame, "accumulation")


def test_conform_never_turns_a_missing_number_into_a_number() -> None:
    frame = pd.DataFrame({"instance": ["a"], "layer": [0], "virtual_token": [float("nan")], "value": [0.5]})
    frame = frame.assign(into_question=0.5, sink=False)
    with pytest.raises(ValueError, match=r"NA|NaN|non-finite"):
        conform(frame, "accumulation")


@pytest.mark.parametrize("name", ["flow", "accumulation", "tokens", "instances"])
def test_frames_of_an_analysis_conform(analysis: Analysis, name: str) -> None:
    assert_conforms(analysis.frames[name], name)


def test_statistics_conform(analysis: Analysis) -> None:
    assert_conforms(trigger_statistics(analysis), "statistics")


def test_controls_conform(model: HookedModel, runs: list[Transcript], prompt: SoftPrompt) -> None:
    controls = sink_controls(model, runs, prompt, conditions=["trained", "random"], progress=False)
    assert_conforms(controls, "sink_controls")
    assert_conforms(saliency_sanity(model, runs, prompt, progress=False), "sanity")


def test_frames_of_an_evaluation_conform(results: Results) -> None:
    assert_conforms(results.instances, "answers")
    assert_conforms(results.summary.drop(columns="task"), "summary")
    assert_conforms(results.statistics, "statistics")
    for name, frame in results.analysis.frames.items():
        assert_conforms(frame, name)


def test_every_column_has_a_dtype_and_a_meaning() -> None:
    for name, columns in FRAMES.items():
        for column, (dtype, meaning) in columns.items():
            assert pd.api.types.pandas_dtype(dtype) is not None, (name, column)
            assert len(meaning) > 2, (name, column)
    assert list(STATISTICS)[-len(TRIGGER_STATISTICS) :] == list(TRIGGER_STATISTICS)


def test_rows_are_sorted_by_the_given_order_and_stay_in_order_within_an_instance() -> None:
    frame = pd.DataFrame({"instance": ["a", "c", "b", "a", "c"], "value": [1, 2, 3, 4, 5]}, index=[7, 8, 9, 10, 11])
    ordered = in_order_of(frame, ["c", "a", "b"])
    assert ordered["instance"].tolist() == ["c", "c", "a", "a", "b"]
    assert ordered["value"].tolist() == [2, 5, 1, 4, 3]
    assert ordered.index.tolist() == [0, 1, 2, 3, 4]


def test_rounding_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "value": [123456.789, -0.00123456789, 0.0, 1e-320, 1.5, float("nan"), float("inf"), -float("inf")],
            "n": range(1234567, 1234575),
            "text": ["0.123456789"] * 8,
        }
    )
    rounded = round_significant(frame)
    expected = [123457.0, -0.00123457, 0.0, 1e-320, 1.5, float("nan"), float("inf"), -float("inf")]
    for value, exact in zip(rounded["value"], expected, strict=True):
        assert value == exact or (math.isnan(value) and math.isnan(exact))
    assert rounded["n"].equals(frame["n"])
    assert rounded["text"].equals(frame["text"])
    assert frame["value"].iloc[0] == 123456.789, "the frame that was passed is not changed"
    assert round_significant(frame, digits=2)["value"].tolist()[:2] == [120000.0, -0.0012]


def test_rounding_a_second_time_changes_nothing() -> None:
    values = np.random.default_rng(0).normal(size=100) * 10.0 ** np.arange(-50, 50)
    once = round_significant(pd.DataFrame({"value": values}))
    pd.testing.assert_frame_equal(round_significant(once), once, check_exact=True)
    np.testing.assert_allclose(once["value"], values, rtol=5e-6)
