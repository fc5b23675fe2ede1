"""The statistics of the trigger on frames worked by hand, and thresholds whose best value is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpc_interp import Analysis, DPCInterpError, TriggerRule, calibrate_trigger, trigger_statistics
from dpc_interp.analysis.schema import TRIGGER_STATISTICS

NAMES = ["b", "a"]


@pytest.fixture
def analysis() -> Analysis:
    """Six layers (deep: 4 and 5, shallow: 0 and 1). Instance b has 4 rationale tokens, a has 5, so 2 early ones each.

    f, the mean over the deep layers:  b  1 3 | 5 1;  a  2 2 | 2 9 1.   The early mean is 2 in both. The row share is
    f / 10, in shallow layers 1.
    """
    deep_values = {"b": [[0, 2, 4, 1], [2, 4, 6, 1]], "a": [[1, 2, 2, 8, 0], [3, 2, 2, 10, 2]]}
    tokens, flow, accumulation = [], [], []
    for name, deep in deep_values.items():
        n = len(deep[0])
        for layer in range(6):
            values = deep[layer - 4] if layer >= 4 else [100.0 * k for k in range(n)]
            shares = [value / 10 if layer >= 4 else 1.0 for value in values]
            tokens += [(name, layer, k, "x", 0, k >= 2, float(values[k]), shares[k], 0.5) for k in range(n)]
            flow.append((name, layer, "prompt", pd.NA, "question", pd.NA, {0: 1.0, 1: 2.0}.get(layer, 50.0)))
            flow.append((name, layer, "prompt", pd.NA, "rationale", pd.NA, 70.0))
            accumulation += [
                (name, layer, j, float(value), 1.0) for j, value in enumerate([4, 1, 7] if layer < 2 else [0, 9, 0])
            ]
    return Analysis(
        flow=pd.DataFrame(flow, columns=["instance", "layer", "source", "source_step", "destination", "step", "value"]),
        accumulation=pd.DataFrame(
            accumulation, columns=["instance", "layer", "virtual_token", "value", "into_question"]
        ),
        tokens=pd.DataFrame(
            tokens,
            columns=["instance", "layer", "position", "token", "step", "late", "value", "row_share", "nll"],
        ),
        instances=pd.DataFrame(
            {
                "instance": NAMES,
                "task": "story",
                "correct": [True, False],
                "n_steps": [2, 3],
                "n_rationale_tokens": [4, 5],
                "nll": [0.5, 0.25],
                "answer_nll": [0.125, 2.0],
            }
        ),
        options={},
    )


def test_statistics_by_hand(analysis: Analysis) -> None:
    stats = trigger_statistics(analysis)
    assert stats["instance"].tolist() == NAMES
    assert stats["late_share"].tolist() == pytest.approx([1 / 2, 1 / 3]), (
        "strictly above the early mean: 2 is not affected"
    )
    assert stats["deep_flow"].tolist() == pytest.approx([3, 4])
    assert stats["row_share"].tolist() == pytest.approx([0.3, 0.4])
    assert stats["shallow_flow"].tolist() == pytest.approx([1.5, 1.5])
    assert stats["peak_token"].tolist() == [2, 2]
    assert stats["peak_ratio"].tolist() == pytest.approx([7 / 4, 7 / 4])
    assert stats["length"].tolist() == [4, 5]
    assert stats["nll"].tolist() == [0.5, 0.25]
    assert stats["answer_nll"].tolist() == [0.125, 2.0]
    assert set(TRIGGER_STATISTICS) < set(stats)
    assert stats["correct"].tolist() == [True, False]
    assert stats["task"].tolist() == ["story", "story"]


def test_options_by_hand(analysis: Analysis) -> None:
    """beta = 1.5: b 5 of (5, 1), a (2, 9) of (2, 9, 1). Only layer 5: b 2 4 | 6 1, mean 3; a 3 2 | 2 10 2, 2.5."""
    assert trigger_statistics(analysis, beta=1.5)["late_share"].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert trigger_statistics(analysis, deep=(5,))["deep_flow"].tolist() == pytest.approx([3.5, 14 / 3])
    assert trigger_statistics(analysis, deep=(5,))["row_share"].tolist() == pytest.approx([0.35, 14 / 30])
    assert trigger_statistics(analysis, deep=(5,))["late_share"].tolist() == pytest.approx([1 / 2, 1 / 3])
    assert trigger_statistics(analysis, shallow=(1, 2))["shallow_flow"].tolist() == pytest.approx([26, 26])
    assert trigger_statistics(analysis, shallow=(3,))["peak_token"].tolist() == [1, 1]
    for layers in ({"deep": (6,)}, {"shallow": (0, -1)}):
        with pytest.raises(DPCInterpError, match="there is no layer"):
            trigger_statistics(analysis, **layers)


def test_the_late_share_of_one_token_is_undefined_unless_beta_is_given(analysis: Analysis) -> None:
    tokens = analysis.tokens[(analysis.tokens["instance"] == "b") | (analysis.tokens["position"] == 2)]
    short = replace(analysis, tokens=tokens)
    stats = trigger_statistics(short)
    assert stats["late_share"].tolist() == pytest.approx([1 / 2, float("nan")], nan_ok=True)
    assert stats["deep_flow"].tolist() == pytest.approx([3, 2])
    assert trigger_statistics(short, beta=1.5)["late_share"].tolist() == pytest.approx([1 / 2, 1])


@pytest.mark.parametrize(
    ("statistic", "shares"),
    [("mean", [1 / 3, 2 / 3]), ("median", [2 / 3, 1 / 3]), ("geometric", [2 / 3, 2 / 3])],
)
def test_beta_is_a_mean_median_or_geometric_mean(analysis: Analysis, statistic: str, shares: list[float]) -> None:
    """Early halves 1 1 25 and 4 4 0.6: means 9 and 2.87, medians 1 and 4, geometric means 2.92 and 2.13."""
    flow = {"b": [1, 1, 25, 1, 5, 10], "a": [4, 4, 0.6, 2, 3, 9]}
    rows = [(name, k, k >= 3, float(value)) for name, values in flow.items() for k, value in enumerate(values)]
    tokens = pd.DataFrame(rows, columns=["instance", "position", "late", "value"])
    tokens = pd.concat([tokens.assign(layer=layer, row_share=0.5, nll=0.1) for layer in (4, 5)])
    stats = trigger_statistics(replace(analysis, tokens=tokens), beta_statistic=statistic)
    assert stats["late_share"].tolist() == pytest.approx(shares)


def test_an_analysis_without_the_nll_of_the_answer_raises(analysis: Analysis) -> None:
    incomplete = replace(analysis, instances=analysis.instances.drop(columns="answer_nll"))
    with pytest.raises(DPCInterpError, match="lacks the column 'answer_nll'"):
        trigger_statistics(incomplete)


def statistics(values: list[float], wrong: list[int], fixed: list[int] | None = None) -> pd.DataFrame:
    """Statistics of instances; `fixed` says whether the answer under corruption is correct."""
    frame = pd.DataFrame({"late_share": values, "correct": [not w for w in wrong]})
    return frame if fixed is None else frame.assign(corrupted_correct=[bool(f) for f in fixed])


def test_fires_strictly_above() -> None:
    rule = TriggerRule("late_share", 0.5)
    assert rule.fires(statistics([0.4, 0.5, 0.6, float("nan")], [0, 0, 0, 0])).tolist() == [False, False, True, False]


def test_youden_separates_separable_outcomes() -> None:
    stats = statistics([0.1, 0.2, 0.3, 0.7, 0.8], [0, 0, 0, 1, 1])
    rule = calibrate_trigger(stats, criterion="youden")
    assert 0.3 <= rule.threshold < 0.7
    assert rule.fires(stats).tolist() == [False, False, False, True, True]
    assert (rule.statistic, rule.criterion, rule.split, rule.n) == ("late_share", "youden", "validation", 5)


def test_youden_with_overlap_by_hand() -> None:
    """Hits - false alarms above 0.15: 3/3 - 2/3 = 1/3; above 0.25: 2/3 - 2/3; above 0.45: 2/3 - 1/3; above 0.55:
    2/3 - 0. Best: 0.5.
    """
    stats = statistics([0.1, 0.2, 0.3, 0.5, 0.6, 0.9], [0, 1, 0, 0, 1, 1])
    rule = calibrate_trigger(stats, criterion="youden")
    assert 0.5 <= rule.threshold < 0.6


def test_accuracy_by_hand() -> None:
    """Gain of corruption, highest value first: +1 (0.9), -1 (0.7), +1 (0.5), +1 (0.4), -1 (0.2). Sums 1 0 1 2 1: fire
    from 0.4.
    """
    stats = statistics([0.9, 0.7, 0.5, 0.4, 0.2], [1, 0, 1, 1, 0], [1, 0, 1, 1, 0])
    rule = calibrate_trigger(stats, criterion="accuracy")
    assert 0.2 <= rule.threshold < 0.4
    assert rule.fires(stats).tolist() == [True, True, True, True, False]


def test_accuracy_never_fires_if_corruption_only_hurts() -> None:
    stats = statistics([0.9, 0.7, 0.5], [0, 1, 0], [0, 0, 0])
    assert not calibrate_trigger(stats, criterion="accuracy").fires(stats).any()


def test_accuracy_always_fires_if_corruption_only_helps() -> None:
    stats = statistics([0.9, 0.7, 0.5], [1, 1, 1], [1, 1, 1])
    assert calibrate_trigger(stats, criterion="accuracy").fires(stats).all()


def test_accuracy_prefers_fewer_corruptions_on_a_tie() -> None:
    stats = statistics([0.9, 0.7, 0.5], [1, 1, 0], [1, 0, 0])
    assert calibrate_trigger(stats, criterion="accuracy").fires(stats).tolist() == [True, False, False]


CASES = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=3, max_size=25)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(CASES)
def test_no_other_threshold_is_better(cases: list[tuple[int, bool, bool]]) -> None:
    values, wrong, fixed = (list(column) for column in zip(*cases, strict=True))
    stats = statistics([v / 5 for v in values], wrong, fixed)
    thresholds = [-np.inf, *stats["late_share"], np.inf]

    def n_correct(threshold: float) -> int:
        return int(np.where(stats["late_share"] > threshold, stats["corrupted_correct"], stats["correct"]).sum())

    chosen = calibrate_trigger(stats, criterion="accuracy").threshold
    assert n_correct(chosen) == max(map(n_correct, thresholds))
    if 0 < sum(wrong) < len(wrong):

        def balance(threshold: float) -> float:
            fired = stats["late_share"] > threshold
            return fired[~stats["correct"]].mean() - fired[stats["correct"]].mean()

        chosen = calibrate_trigger(stats, criterion="youden").threshold
        assert balance(chosen) == pytest.approx(max(map(balance, thresholds)))


@pytest.mark.parametrize("wrong", [[0, 0], [1, 1]])
def test_youden_needs_both_outcomes(wrong: list[int]) -> None:
    with pytest.raises(DPCInterpError, match="same outcome"):
        calibrate_trigger(statistics([0.1, 0.2], wrong))


def test_accuracy_needs_the_corrupted_answers() -> None:
    with pytest.raises(DPCInterpError, match="corrupted_correct"):
        calibrate_trigger(statistics([0.1, 0.2], [0, 1]), criterion="accuracy")


def test_youden_never_fires_if_no_threshold_helps() -> None:
    stats = pd.DataFrame({"late_share": [0.1, 0.2, 0.3, 0.4], "correct": [False, False, True, True]})
    rule = calibrate_trigger(stats, "youden")
    assert rule.threshold == 0.4
    assert not rule.fires(stats).any()
