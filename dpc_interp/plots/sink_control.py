"""How much of claim C1 was learned: accumulation under the trained prompt and under control prompts.

See docs/method.md, section 7.1, and `analysis/controls.py` for the conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, layer_span, matrix, select_layers
from dpc_interp.plots.intervals import draw_intervals, name_rows
from dpc_interp.plots.style import COLUMN_WIDTH, GREY, drawing_axes, series_style
from dpc_interp.plots.virtual_tokens import set_token_axis
from dpc_interp.stats.bootstrap import mean_interval

COLUMNS = ["condition", "instance", "layer", "virtual_token", "value", "sink"]
ROW_SPREAD = 0.5
"""Height that the prompts of one condition are spread over; rows are 1 apart."""


def plot_sink_control(
    frame: pd.DataFrame, *, shallow: Sequence[int], ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Accumulation by virtual token, one line with its 95% band a condition, in multiples of each instance's mean.

    Accumulation is not comparable between prompts in absolute terms. Divided by the mean over the tokens of the
    instance, sinks excluded, it is comparable, and a token that receives as much as the average has the value 1.

    Args:
        frame: `sink_controls` frame of one prompt.
        shallow: the layers to average over.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all lines.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, the frame lacks one of the
            layers, or the rows are of several prompts.
    """
    check_frame(frame, "sink control", COLUMNS)
    check_finite(frame, "sink control", ["value"])
    if frame.duplicated(["condition", "instance", "layer", "virtual_token"]).any():
        raise DPCInterpError("the sink control frame holds a condition's instance twice; give the rows of one prompt")
    chosen, layers = select_layers(frame, "sink control", shallow)
    with drawing_axes(ax, (COLUMN_WIDTH, 2.6)) as axes:
        for i, (condition, rows) in enumerate(chosen.groupby("condition", sort=False)):
            table = by_instance(rows, "virtual_token")
            values = matrix(table)
            counts = ~table.columns.isin(rows.loc[rows["sink"], "virtual_token"])
            mean, low, high = mean_interval(values / values[:, counts].mean(axis=1, keepdims=True), seed=seed)
            series = series_style(i, str(condition))
            axes.fill_between(table.columns, low, high, color=series.color, alpha=0.15, linewidth=0)
            axes.plot(table.columns, mean, label=series.label, **{**series.line(), "markersize": 2.5, **style})
        axes.axhline(1.0, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_ylim(bottom=0)
        set_token_axis(axes)
        axes.set_ylabel(f"acc$(j)$ / mean, {layer_span(layers)}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.4)
    return axes


def plot_sink_ratios(summary: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Geometric mean of the peak ratio with its 95% interval, conditions as rows, prompts by colour and marker.

    A grey stroke is the level by chance under each condition.

    Args:
        summary: `sink_summary` frame of one task.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.errorbar` for all prompts.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or a condition has several rows
            of one prompt.
    """
    numbers = ["peak_ratio", "low", "high"]
    check_frame(summary, "sink summary", ["prompt", "condition", "chance", *numbers])
    check_finite(summary, "sink summary", [*numbers, "chance"])
    if summary.duplicated(["prompt", "condition"]).any():
        raise DPCInterpError("the sink summary frame holds a prompt's condition twice; give the rows of one task")
    conditions = list(summary["condition"].drop_duplicates())
    prompts = list(summary["prompt"].drop_duplicates())
    shifts = ROW_SPREAD * (np.arange(len(prompts)) - (len(prompts) - 1) / 2) / max(1, len(prompts))
    with drawing_axes(ax, (COLUMN_WIDTH, 0.9 + 0.32 * len(conditions))) as axes:
        for i, prompt in enumerate(prompts):
            rows = summary[summary["prompt"] == prompt]
            heights = [conditions.index(condition) + float(shifts[i]) for condition in rows["condition"]]
            series = series_style(i, str(prompt))
            keywords = {"color": series.color, "fmt": series.marker, "label": series.label, **style}
            draw_intervals(axes, heights, *matrix(rows[numbers]).T, horizontal=True, **keywords)
            axes.plot(rows["chance"], heights, "|", color=GREY, label="chance" if not i else None)
        name_rows(axes, conditions)
        axes.set_xlim(left=0)
        axes.set_xlabel("peak ratio, geometric mean, 95%")
        n_columns = min(3, 1 + len(prompts))
        # Aligned to the right, so that a wide legend extends over the names of the conditions.
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=n_columns, handlelength=1.2)
    return axes
