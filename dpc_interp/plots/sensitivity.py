"""How much the options matter (METHOD 7.4): accuracy minus that of pt, by the value of each option.

Hollow marks are of the validation split, which selects; filled ones of the test split, which reports. The band marks
the selected value, bold type the default.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import check_finite, check_frame, label
from dpc_interp.plots.style import BLUE, COLUMN_WIDTH, GREY, VERMILLION, drawing_axes, style_context

COLUMNS = ["option", "value", "split", "default", "selected", "difference", "difference_low", "difference_high"]
SPLIT_LOOKS = MappingProxyType({"validation": (-0.14, VERMILLION, "s", "white"), "test": (0.14, BLUE, "o", BLUE)})
"""Split -> shift of its marks, colour, marker, fill."""
NAMES = MappingProxyType(
    {
        "alpha_offset": r"$\alpha$ minus calibrated",
        "beta": r"$\beta$ / mean deep flow",
        "gamma": r"$\Gamma$ (%)",
        "shallow": "shallow layers",
        "deep": "deep layers",
    }
)
PANEL_HEIGHT, PANELS_A_ROW, LABEL_WIDTH = 1.45, 4, 7
"""Inches; and characters in a line of a tick label."""


def plot_sensitivity(frame: pd.DataFrame, *, axes: Sequence[Axes] | None = None, **style: Any) -> list[Axes]:
    """A panel an option, in the order of the frame, on one scale; a new figure is two columns wide.

    Args:
        frame: rows of `sensitivity` of one model, task, prompt and method.
        axes: where to draw, one for each option.
        style: to `Axes.errorbar`, all panels.

    Raises:
        DPCInterpError: as `plot_sensitivity_panel`, or another number of axes than options.
    """
    check_frame(frame, "sensitivity", COLUMNS)
    options = [str(option) for option in frame["option"].drop_duplicates()]
    if axes is not None:
        if len(axes) != len(options):
            raise DPCInterpError(f"there are {len(axes)} axes for {len(options)} options; give one for each")
        return [plot_sensitivity_panel(frame, option=o, ax=ax, **style) for o, ax in zip(options, axes, strict=True)]
    _check(frame)
    with style_context():
        columns = min(PANELS_A_ROW, len(options))
        rows = -(-len(options) // columns)
        size = (2 * COLUMN_WIDTH, 0.3 + PANEL_HEIGHT * rows)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for ax in panels[len(options) :]:
            ax.remove()
        drawn = plot_sensitivity(frame, axes=panels[: len(options)], **style)
        for i, ax in enumerate(drawn):
            if i % columns:
                ax.set_ylabel("")
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return drawn


def plot_sensitivity_panel(frame: pd.DataFrame, *, option: str, ax: Axes | None = None, **style: Any) -> Axes:
    """Accuracy minus pt, in points with its 95% interval, by the value of one option.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a number is not finite, no such option, or rows of
            several models, tasks, prompts or methods.
    """
    _check(frame)
    known = [str(name) for name in frame["option"].drop_duplicates()]
    if option not in known:
        raise UnknownNameError("option", option, known)
    rows = frame[frame["option"] == option]
    values = [str(value) for value in rows["value"].drop_duplicates()]
    with drawing_axes(ax, (COLUMN_WIDTH, 1.8)) as axes:
        for value in rows.loc[rows["selected"], "value"].drop_duplicates():
            at = values.index(str(value))
            axes.axvspan(at - 0.4, at + 0.4, color="0.9", linewidth=0, zorder=0, label="selected on validation")
        axes.axhline(0, color=GREY, linewidth=0.6)
        for split, (shift, color, marker, fill) in SPLIT_LOOKS.items():
            group = rows[rows["split"] == split]
            if group.empty:
                continue
            middle = 100 * group["difference"].to_numpy(dtype=np.float64)
            below = middle - 100 * group["difference_low"].to_numpy(dtype=np.float64)
            above = 100 * group["difference_high"].to_numpy(dtype=np.float64) - middle
            at_values = [values.index(str(value)) + shift for value in group["value"]]
            look = {"color": color, "fmt": marker, "markerfacecolor": fill, "elinewidth": 0.8}
            axes.errorbar(at_values, middle, np.maximum([below, above], 0.0), label=split, **{**look, **style})
        axes.set_xticks(
            range(len(values)),
            [textwrap.fill(v.replace("_", " "), LABEL_WIDTH, break_long_words=False) for v in values],
        )
        axes.set_xlim(-0.6, len(values) - 0.4)
        defaults = {str(value) for value in rows.loc[rows["default"], "value"]}
        for tick, value in zip(axes.get_xticklabels(), values, strict=True):
            tick.set_fontweight("bold" if value in defaults else "normal")
        axes.set_xlabel(NAMES.get(option, label(option)))
        axes.set_ylabel("minus pt (points)")
    return axes


def _check(frame: pd.DataFrame) -> None:
    check_frame(frame, "sensitivity", COLUMNS)
    check_finite(frame, "sensitivity", COLUMNS[-3:])
    if frame.duplicated(["option", "value", "split"]).any():
        raise DPCInterpError(
            "the sensitivity frame's column 'value' holds a value twice; give the rows of one model, task, prompt and "
            "method"
        )
