"""Dots with intervals: their ends in data coordinates, along either axis, and the rows that they are drawn on."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from dpc_interp.plots.intervals import draw_intervals, name_rows, separate_rows

VALUES, LOW, HIGH = [1.0, -2.0, 0.5], [0.5, -4.0, 0.5], [3.0, -1.5, 0.75]


@pytest.mark.parametrize("horizontal", [False, True])
def test_intervals_run_from_low_to_high_along_their_axis(horizontal: bool) -> None:
    axes = plt.figure().add_subplot()
    dots, _, (bars,) = draw_intervals(axes, [0, 1, 4], VALUES, LOW, HIGH, horizontal=horizontal, fmt="o").lines
    along, across = (0, 1) if horizontal else (1, 0)
    np.testing.assert_array_equal(dots.get_data()[along], VALUES)
    np.testing.assert_array_equal(dots.get_data()[across], [0, 1, 4])
    segments = np.array(bars.get_segments())
    np.testing.assert_allclose(segments[:, :, along], np.column_stack([LOW, HIGH]))
    np.testing.assert_allclose(segments[:, :, across], np.column_stack([[0, 1, 4]] * 2))


def test_a_bound_on_the_wrong_side_of_its_value_is_drawn_at_the_value() -> None:
    """A bootstrap interval need not contain its estimate."""
    axes = plt.figure().add_subplot()
    _, _, (bars,) = draw_intervals(axes, [0, 1], [1.0, 1.0], [1.2, 0.5], [1.5, 0.8], fmt="o").lines
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[1.0, 1.5], [0.5, 1.0]])


def test_series_are_drawn_as_numbers_whatever_their_index() -> None:
    axes = plt.figure().add_subplot()
    frame = pd.DataFrame({"value": VALUES, "low": LOW, "high": HIGH}, index=[7, 3, 5])
    dots, _, (bars,) = draw_intervals(axes, [0, 1, 2], frame["value"], frame["low"], frame["high"], fmt="o").lines
    np.testing.assert_array_equal(dots.get_ydata(), VALUES)
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], frame[["low", "high"]])


def test_style_goes_to_the_dots_and_overrides_the_line_width() -> None:
    axes = plt.figure().add_subplot()
    default = draw_intervals(axes, [0], [1], [0], [2], fmt="s", color="#0072B2", label="test")
    dots, _, (bars,) = default.lines
    assert (dots.get_marker(), to_hex(dots.get_color()), default.get_label()) == ("s", "#0072b2", "test")
    assert bars.get_linewidth() == [0.8]
    assert draw_intervals(axes, [0], [1], [0], [2], fmt="s", elinewidth=3).lines[2][0].get_linewidth() == [3]


def test_rows_are_named_from_the_top_and_separated() -> None:
    axes = plt.figure().add_subplot()
    separate_rows(axes, 3)
    name_rows(axes, ["pt", "random", "dpc"])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["pt", "random", "dpc"]
    assert list(axes.get_yticks()) == [0, 1, 2]
    assert axes.get_ylim() == (2.5, -0.5)
    assert [line.get_ydata()[0] for line in axes.lines] == [0.5, 1.5]
