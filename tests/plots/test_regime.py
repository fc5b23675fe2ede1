"""The regime: each share stands at its task with its interval, in percent; what was not measured is not drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_regime
from dpc_interp.plots.regime import SHARES


def drawn(ax: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Label -> the points [task, (x, y)] and the ends of their intervals [task, (low, high)]."""
    points_of = {}
    for container in ax.containers:
        points, _, (bars,) = container
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        points_of[container.get_label()] = points.get_xydata(), ends
    return points_of


def test_points_and_intervals_are_those_of_the_frame_in_percent(regimes: pd.DataFrame) -> None:
    ax = plot_regime(regimes)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["story", "rule"]
    assert ax.get_ylim() == (0, 100)
    series = drawn(ax)
    assert list(series) == [look.label for look in SHARES.values()]
    for share, look in SHARES.items():
        points, ends = series[look.label]
        np.testing.assert_allclose(points[:, 1], 100 * regimes[share])
        np.testing.assert_allclose(ends, 100 * regimes[[f"{share}_low", f"{share}_high"]])
        assert np.rint(points[:, 0]).tolist() == [0, 1], "nearest to the tick of its task"


def test_the_shares_of_a_task_stand_side_by_side_in_order(regimes: pd.DataFrame) -> None:
    x = np.array([points[:, 0] for points, _ in drawn(plot_regime(regimes)).values()])
    gaps = np.diff(x, axis=0)
    assert (gaps > 0.05).all()
    np.testing.assert_allclose(x.mean(axis=0), [0, 1], atol=1e-12)
    assert x[:, 1].min() - x[:, 0].max() > gaps.max(), "tasks are further apart than shares"


def test_markers_at_0_and_100_percent_are_whole(regimes: pd.DataFrame) -> None:
    assert not any(container[0].get_clip_on() for container in plot_regime(regimes).containers)


def test_shares_differ_in_marker_and_colour(regimes: pd.DataFrame) -> None:
    lines = [container[0] for container in plot_regime(regimes).containers]
    assert len({line.get_marker() for line in lines}) == len(SHARES)
    assert len({line.get_color() for line in lines}) == len(SHARES)
    assert {line.get_linestyle() for line in lines} == {"None"}


def test_the_legend_names_every_share_outside_the_axes(regimes: pd.DataFrame) -> None:
    ax = plot_regime(regimes)
    ax.figure.draw_without_rendering()
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [look.label for look in SHARES.values()]
    assert legend.get_window_extent().y0 >= ax.get_window_extent().y1 - 1


def test_what_was_not_measured_is_not_drawn(regimes: pd.DataFrame) -> None:
    """Without the method `cut_off` its columns are NaN."""
    unknown = regimes.assign(late_texts=np.nan, late_texts_low=np.nan, late_texts_high=np.nan)
    ax = plot_regime(unknown)
    points, ends = drawn(ax)[SHARES["late_texts"].label]
    assert np.isnan(points[:, 1]).all()
    assert len(ends) == 0
    np.testing.assert_allclose(drawn(ax)[SHARES["pt"].label][0][:, 1], [70, 98])


def test_keywords_reach_the_intervals(regimes: pd.DataFrame) -> None:
    ax = plot_regime(regimes, markersize=9, capsize=3)
    assert {container[0].get_markersize() for container in ax.containers} == {9}
    assert all(container[1] for container in ax.containers), "caps"


def test_a_share_without_its_bound_raises(regimes: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="lacks the column 'helped_high'"):
        plot_regime(regimes.drop(columns="helped_high"))
