"""Accuracy minus that of pt by the value of each option (docs/method.md, section 7.4).

Hollow marks show the validation split, which selects a value; filled marks show the test split, which reports it. The
band marks the selected value, bold type the default.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import check_finite, check_frame, label, matrix
from dpc_interp.plots.intervals import draw_intervals
from dpc_interp.plots.style import BLUE, COLUMN_WIDTH, GREY, VERMILLION, drawing_axes, style_context

NUMBERS = ["difference", "difference_low", "difference_high"]
COLUMNS = ["option", "value", "split", "default", "selected", *NUMBERS]


class SplitStyle(NamedTuple):
    """How the marks of a split are drawn; `shift` is their distance from the tick of the value."""

    shift: float
    color: str
    marker: str
    fill: str


SPLIT_STYLES: Mapping[str, SplitStyle] = MappingProxyType(
    {"validation": SplitStyle(-0.14, VERMILLION, "s", "white"), "test": SplitStyle(0.14, BLUE, "o", BLUE)}
)
"""Split -> how its marks are drawn."""
OPTION_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "alpha_offset": r"$\alpha$ minus calibrated",
        "beta": r"$\beta$ / mean deep flow",
        "beta_statistic": r"$\beta$ of the early half",
        "gamma": r"$\Gamma$ (%)",
        "shallow": "shallow layers",
        "deep": "deep layers",
    }
)
"""Option -> label of the x axis, where its name alone would not do."""
PANEL_HEIGHT = 1.45
"""Height of a panel in inches."""
PANELS_PER_ROW = 4
"""The most panels of a row."""
TICK_LABEL_WIDTH = 7
"""Characters of a tick label before it is broken."""


def plot_sensitivity(frame: pd.DataFrame, *, axes: Sequence[Axes] | None = None, **style: Any) -> list[Axes]:
    """One panel per option, in the order of the frame and on one scale.

    Args:
        frame: rows of `option_sensitivity` of one model, task, prompt and method.
        axes: where to draw, one for each option; None: a new figure two columns wide.
        style: keywords of `Axes.errorbar` for all panels.

    Returns:
        The axes of each option.

    Raises:
        DPCInterpError: as `plot_sensitivity_panel`, or the number of axes is not the number of options.
    """
    check_frame(frame, "sensitivity", COLUMNS)
    options = [str(option) for option in frame["option"].drop_duplicates()]
    if axes is not None:
        if len(axes) != len(options):
            raise DPCInterpError(f"{len(axes)} axes for {len(options)} options; give one for each")
        return [plot_sensitivity_panel(frame, option=o, ax=ax, **style) for o, ax in zip(options, axes, strict=True)]
    _check(frame)
    with style_context():
        n_rows = -(-len(options) // PANELS_PER_ROW)
        n_columns = -(-len(options) // n_rows)  # rows of nearly the same length
        size = (2 * COLUMN_WIDTH, 0.3 + PANEL_HEIGHT * n_rows)
        figure, grid = plt.subplots(n_rows, n_columns, figsize=size, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for ax in panels[len(options) :]:
            ax.remove()
        panels = plot_sensitivity(frame, axes=panels[: len(options)], **style)
        for i, ax in enumerate(panels):
            if i % n_columns:
                ax.set_ylabel("")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return panels


def plot_sensitivity_panel(frame: pd.DataFrame, *, option: str, ax: Axes | None = None, **style: Any) -> Axes:
    """Accuracy minus that of pt, in percentage points with its 95% interval, by the value of one option.

    Args:
        frame: rows of `option_sensitivity` of one model, task, prompt and method.
        option: the option.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.errorbar` for both splits.

    Returns:
        The axes.

    Raises:
        UnknownNameError: the frame has no such option.
        DPCInterpError: a column is missing, there are no rows, a number is not finite, or the rows are of several
            models, tasks, prompts or methods.
    """
    _check(frame)
    known = [str(name) for name in frame["option"].drop_duplicates()]
    if option not in known:
        raise UnknownNameError("option", option, known)
    rows = frame[frame["option"] == option]
    values = [str(value) for value in rows["value"].drop_duplicates()]
    with drawing_axes(ax, (COLUMN_WIDTH, 1.8)) as axes:
        for value in rows.loc[rows["selected"], "value"].drop_duplicates():
            tick = values.index(str(value))
            axes.axvspan(tick - 0.4, tick + 0.4, color="0.9", linewidth=0, zorder=0, label="selected on validation")
        axes.axhline(0, color=GREY, linewidth=0.6)
        for split, split_style in SPLIT_STYLES.items():
            of_split = rows[rows["split"] == split]
            if of_split.empty:
                continue
            positions = [values.index(str(value)) + split_style.shift for value in of_split["value"]]
            keywords = {"color": split_style.color, "fmt": split_style.marker, "markerfacecolor": split_style.fill}
            points = 100 * matrix(of_split[NUMBERS]).T
            draw_intervals(axes, positions, *points, **{**keywords, "label": split, **style})
        _name_values(axes, values, defaults={str(value) for value in rows.loc[rows["default"], "value"]})
        axes.set_xlabel(OPTION_LABELS.get(option, label(option)))
        axes.set_ylabel("minus pt (points)")
    return axes


def _name_values(axes: Axes, values: Sequence[str], defaults: set[str]) -> None:
    """Name the values on the x axis, the default in bold."""
    axes.set_xticks(
        range(len(values)),
        [textwrap.fill(value.replace("_", " "), TICK_LABEL_WIDTH, break_long_words=False) for value in values],
    )
    axes.set_xlim(-0.6, len(values) - 0.4)
    for tick, value in zip(axes.get_xticklabels(), values, strict=True):
        tick.set_fontweight("bold" if value in defaults else "normal")


def _check(frame: pd.DataFrame) -> None:
    check_frame(frame, "sensitivity", COLUMNS)
    check_finite(frame, "sensitivity", NUMBERS)
    if frame.duplicated(["option", "value", "split"]).any():
        raise DPCInterpError(
            "the sensitivity frame's column 'value' holds a value twice; give the rows of one model, task, prompt and "
            "method"
        )
