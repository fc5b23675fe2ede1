"""Accuracy: dots and intervals are those of the summary in %, methods are rows in the order of the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_accuracy


def test_dots_and_intervals_are_those_of_the_summary(summary: pd.DataFrame) -> None:
    ax = plot_accuracy(summary)
    methods = [label.get_text() for label in ax.get_yticklabels()]
    assert methods == ["bare", "pt", "random", "always", "dpc", "oracle"]
    assert ax.yaxis_inverted()  # the first method on top
    assert [container.get_label() for container in ax.containers] == ["story", "choice", "algebra", "rule"]
    for container in ax.containers:
        rows = summary[summary["task"] == container.get_label()]
        dots, _, (bars,) = container.lines
        np.testing.assert_allclose(dots.get_xdata(), 100 * rows["accuracy"])
        assert [methods[round(y)] for y in dots.get_ydata()] == list(rows["method"])
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, 100 * rows[["low", "high"]])


def test_tasks_differ_in_colour_and_marker_and_do_not_overlap(summary: pd.DataFrame) -> None:
    dots = [container.lines[0] for container in plot_accuracy(summary).containers]
    assert len({dot.get_color() for dot in dots}) == len({dot.get_marker() for dot in dots}) == 4
    heights = sorted(y for dot in dots for y in dot.get_ydata())
    assert min(np.diff(heights)) > 0.15


def test_a_single_task_is_centred_on_its_row_and_a_task_may_lack_methods(summary: pd.DataFrame) -> None:
    (container,) = plot_accuracy(summary[summary["task"] == "rule"]).containers
    assert list(container.lines[0].get_ydata()) == [0, 1, 2, 3, 4, 5]
    incomplete = summary[(summary["task"] == "story") | (summary["method"] == "dpc")]
    assert [len(c.lines[0].get_ydata()) for c in plot_accuracy(incomplete).containers] == [6, 1, 1, 1]


def test_percentages_and_repeated_methods_raise(summary: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="column 'high' must hold shares from 0 to 1"):
        plot_accuracy(summary.assign(high=summary["high"] * 100))
    with pytest.raises(DPCInterpError, match="column 'method' names a method twice"):
        plot_accuracy(pd.concat([summary, summary]))
