"""Trigger figures: histograms, curves and legends agree with the statistics frame and with scikit-learn."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from scipy.integrate import trapezoid
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_precision_recall, plot_roc, plot_trigger_distribution

SCORES = ["late_share", "peak_ratio"]


def _legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_histograms_are_percentages_of_each_outcome(statistics: pd.DataFrame) -> None:
    ax = plot_trigger_distribution(statistics, statistic="nll", threshold=0.25, bins=9)
    _, right, _, wrong = ax.patches  # each outcome: a fill, then its outline
    edges = np.histogram_bin_edges(statistics["nll"], 9)
    for patch, correct in ((right, True), (wrong, False)):
        values = statistics.loc[statistics["correct"] == correct, "nll"]
        np.testing.assert_allclose(patch.get_data().values, 100 * np.histogram(values, edges)[0] / len(values))
        assert patch.get_data().values.sum() == pytest.approx(100)
        np.testing.assert_allclose(patch.get_data().edges, edges)
    assert (right.get_hatch(), wrong.get_hatch()) == (None, "////")
    assert ax.lines[0].get_xdata()[0] == 0.25
    n_right = int(statistics["correct"].sum())
    assert _legend(ax) == [f"right ($n$ = {n_right})", f"wrong ($n$ = {200 - n_right})", "threshold 0.25"]


def test_roc_curves_have_the_stated_area(statistics: pd.DataFrame) -> None:
    ax = plot_roc(statistics, statistics=SCORES)
    wrong = ~statistics["correct"]
    for line, name, text in zip(ax.lines[1:], SCORES, _legend(ax), strict=True):
        area = roc_auc_score(wrong, statistics[name])
        assert trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area)
        value, low, high = map(float, re.findall(r"\d\.\d\d", text))
        assert value == pytest.approx(area, abs=0.0051)
        assert low < value < high
    assert len({line.get_linestyle() for line in ax.lines[1:]}) == 2


def test_a_point_of_the_roc_curve_is_a_threshold(statistics: pd.DataFrame) -> None:
    line = plot_roc(statistics, statistics=["late_share"]).lines[1]
    fires, correct = statistics["late_share"] >= 0.7, statistics["correct"]
    points = np.column_stack(line.get_data())
    assert np.isclose(points, [fires[correct].mean(), fires[~correct].mean()]).all(axis=1).any()


def test_precision_recall_curves_have_the_stated_average_precision(statistics: pd.DataFrame) -> None:
    ax = plot_precision_recall(statistics, statistics=SCORES)
    wrong = ~statistics["correct"]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(wrong.mean())
    for line, name, text in zip(ax.lines[1:], SCORES, _legend(ax), strict=True):
        area = average_precision_score(wrong, statistics[name])
        recall, precision = line.get_data()
        assert line.get_drawstyle() == "steps-post"
        assert -(np.diff(recall) * precision[:-1]).sum() == pytest.approx(area)
        value, low, high = map(float, re.findall(r"\d\.\d\d", text))
        assert value == pytest.approx(area, abs=0.0051)
        assert low < value < high


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_a_single_outcome_and_no_statistics_raise(plot: type[plot_roc], statistics: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="'correct' holds only True; both outcomes are needed"):
        plot(statistics[statistics["correct"]], statistics=SCORES)
    with pytest.raises(DPCInterpError, match="no statistics to plot"):
        plot(statistics, statistics=[])
