"""Sensitivity: marks and intervals are those of the frame; a band marks the selected value, bold type the default."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import COLUMN_WIDTH, plot_sensitivity, plot_sensitivity_panel


def test_a_panel_shows_both_splits_and_marks_the_selected_value(swept: pd.DataFrame) -> None:
    ax = plot_sensitivity_panel(swept, option="gamma")
    by_split = {container.get_label(): container for container in ax.containers}
    assert set(by_split) == {"validation", "test"}
    for split, container in by_split.items():
        rows = swept[(swept["option"] == "gamma") & (swept["split"] == split)]
        marks, _, (bars,) = container.lines
        assert [round(x) for x in marks.get_xdata()] == [0, 1, 2]
        np.testing.assert_allclose(marks.get_ydata(), 100 * rows["difference"])
        ends = [segment[:, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, 100 * rows[["difference_low", "difference_high"]])
    assert by_split["validation"].lines[0].get_markerfacecolor() == "white"
    assert by_split["test"].lines[0].get_markerfacecolor() != "white"
    (band,) = ax.patches
    assert band.get_x() < 2 < band.get_x() + band.get_width()
    ticks = ax.get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["0", "10", "20"]
    assert [tick.get_fontweight() for tick in ticks] == ["normal", "bold", "normal"]


def test_panels_share_a_scale_and_are_two_columns_wide(swept: pd.DataFrame) -> None:
    panels = plot_sensitivity(swept)
    assert [ax.get_xlabel() for ax in panels] == [r"$\Gamma$ (%)", "head reduction"]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert panels[0].figure.get_figwidth() == 2 * COLUMN_WIDTH
    (legend,) = panels[0].figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"validation", "test", "selected on validation"}
    _, axes = plt.subplots(1, 2)
    assert plot_sensitivity(swept, axes=list(axes)) == list(axes)
    with pytest.raises(DPCInterpError, match="1 axes for 2 options"):
        plot_sensitivity(swept, axes=[axes[0]])


def test_rows_of_several_methods_and_unknown_options_raise(swept: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="give the rows of one model, task, prompt and method"):
        plot_sensitivity(pd.concat([swept, swept]))
    with pytest.raises(DPCInterpError, match="unknown option 'alpha'; known: gamma, head_reduction"):
        plot_sensitivity_panel(swept, option="alpha")
