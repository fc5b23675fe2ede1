"""Triggers compared: dots, intervals and curves are those of the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_trigger_gain, plot_triggers

NAMES = {
    "late_share": "late share $R$",
    "answer_nll": "answer-token NLL",
    "random": "random",
    "length": "length (tokens)",
}


def test_dots_and_intervals_are_those_of_the_frame(triggers: pd.DataFrame) -> None:
    ax = plot_triggers(triggers)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(NAMES.values())
    assert ax.yaxis_inverted()  # the first trigger on top
    assert [container.get_label() for container in ax.containers] == ["PT was wrong", "corruption fixes it"]
    for container in ax.containers:
        rows = triggers[(triggers["outcome"] == container.get_label()) & (triggers["rate"] == 0.1)].iloc[:3]
        dots, _, (bars,) = container.lines
        np.testing.assert_allclose(dots.get_xdata(), rows["auroc"])
        assert [list(NAMES)[round(y)] for y in dots.get_ydata()] == rows["trigger"].tolist()
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, rows[["auroc_low", "auroc_high"]])
    first, second = (container.lines[0] for container in ax.containers)
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert list(ax.lines[0].get_xdata()) == [0.5, 0.5], "the vertical line is chance"


def test_curves_are_those_of_the_frame_and_the_first_has_a_band(triggers: pd.DataFrame) -> None:
    ax = plot_trigger_gain(triggers, triggers=["answer_nll", "random"])
    curves = {line.get_label(): line for line in ax.lines[1:]}
    assert list(curves) == [NAMES["answer_nll"], "random"]
    rows = triggers[(triggers["trigger"] == "answer_nll") & (triggers["outcome"] == "PT was wrong")]
    np.testing.assert_allclose(curves[NAMES["answer_nll"]].get_xdata(), 100 * rows["firing_rate"])
    np.testing.assert_allclose(curves[NAMES["answer_nll"]].get_ydata(), 100 * rows["difference"])
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(100 * rows["difference_low"].min())
    assert corners[:, 1].max() == pytest.approx(100 * rows["difference_high"].max())
    assert to_hex(curves["random"].get_color()) == to_hex("0.45")


def test_curves_of_all_statistics_differ_and_their_legend_fits(triggers: pd.DataFrame) -> None:
    """One column of a page holds the legend of all statistics and both references."""
    rows = triggers[triggers["trigger"] == "late_share"]
    names = [*TRIGGER_STATISTICS, "random", "oracle"]
    ax = plot_trigger_gain(pd.concat([rows.assign(trigger=name) for name in names]))
    curves = ax.lines[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == len(names)
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert ax.figure.bbox.x0 <= legend.x0
    assert legend.x1 <= ax.figure.bbox.x1


def test_several_tasks_a_single_rate_and_unknown_triggers_raise(triggers: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="mixes tasks \\(story, rule\\)"):
        plot_triggers(pd.concat([triggers, triggers.assign(task="rule")]))
    with pytest.raises(DPCInterpError, match="holds one rate"):
        plot_trigger_gain(triggers[triggers["rate"] == 0.1])
    with pytest.raises(DPCInterpError, match="unknown trigger 'lenght'"):
        plot_trigger_gain(triggers, triggers=["lenght"])
