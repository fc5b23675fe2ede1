"""What of C1 is the prompt's own: accumulation behind the trained prompt and its controls (METHOD 7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, layer_span, matrix, select_layers
from dpc_interp.plots.style import COLUMN_WIDTH, DASHES, GREY, MARKERS, PALETTE, drawing_axes

COLUMNS = ["condition", "instance", "layer", "virtual_token", "value"]
NULL = 2.0
"""C1's null: the peak draws twice the mean."""


def plot_sink_control(
    frame: pd.DataFrame, *, shallow: Sequence[int], ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Accumulation by virtual token, a line with its 95% band a condition, each instance as multiples of its mean.

    Strengths under different prompts cannot be compared; divided by the instance's mean over tokens they can, and 1 is
    what a token draws that is like all others.

    Args:
        frame: `sink_controls` frame of one prompt.
        shallow: the layers averaged over.
        ax: where to draw; default a new figure.
        seed: of the bootstrap.
        style: to `Axes.plot`, all lines.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, no such layer, or
            several prompts.
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
            mean, low, high = mean_interval(values / values.mean(axis=1, keepdims=True), seed=seed)
            color = PALETTE[i % len(PALETTE)]
            look: dict[str, Any] = {"color": color, "marker": MARKERS[i % len(MARKERS)], "markersize": 2.5}
            look["linestyle"] = DASHES[i % len(DASHES)]
            axes.fill_between(table.columns, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(table.columns, mean, label=str(condition), **{**look, **style})
        axes.axhline(1.0, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("virtual token $j$")
        axes.set_ylabel(f"acc$(j)$ / mean, {layer_span(layers)}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.4)
    return axes


def plot_sink_ratios(summary: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Mean peak ratio with its 95% interval, conditions as rows, a mark a prompt; the dashed line is C1's null, 2.

    Args:
        summary: `sink_summary` frame of one task.
        ax: where to draw; default a new figure.
        style: to `Axes.errorbar`, all prompts.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or a prompt's condition is there
            twice.
    """
    columns = ["prompt", "condition", "peak_ratio", "low", "high"]
    check_frame(summary, "sink summary", columns)
    check_finite(summary, "sink summary", columns[2:])
    if summary.duplicated(columns[:2]).any():
        raise DPCInterpError("the sink summary frame holds a prompt's condition twice; give the rows of one task")
    conditions = list(summary["condition"].drop_duplicates())
    prompts = list(summary["prompt"].drop_duplicates())
    shifts = 0.5 * (np.arange(len(prompts)) - (len(prompts) - 1) / 2) / max(1, len(prompts))
    with drawing_axes(ax, (COLUMN_WIDTH, 0.9 + 0.32 * len(conditions))) as axes:
        for i, prompt in enumerate(prompts):
            rows = summary[summary["prompt"] == prompt]
            middle, low, high = (rows[column].to_numpy(dtype=np.float64) for column in columns[2:])
            heights = [conditions.index(condition) + float(shifts[i]) for condition in rows["condition"]]
            look = {"color": PALETTE[i % len(PALETTE)], "fmt": MARKERS[i % len(MARKERS)], "elinewidth": 0.8}
            around = np.maximum([middle - low, high - middle], 0.0)
            axes.errorbar(middle, heights, xerr=around, label=str(prompt), **{**look, **style})
        axes.axvline(NULL, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(conditions)), conditions)
        axes.set_ylim(len(conditions) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("peak ratio, mean and 95% interval")
        n_columns = min(3, len(prompts))  # to the right: over the names of the conditions is room
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=n_columns, handlelength=1.2)
    return axes
