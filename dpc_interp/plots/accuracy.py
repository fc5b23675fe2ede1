"""Who wins: accuracy of each method on each task, a dot with its 95% interval (METHOD 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_finite, check_frame
from dpc_interp.plots.style import COLUMN_WIDTH, MARKERS, PALETTE, drawing_axes

SPREAD = 0.6
"""Height, of 1 a method, over which its tasks are spread."""


def plot_accuracy(summary: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Methods (rows, first on top) by tasks (colour and marker): accuracy in % with its interval.

    Args:
        summary: `results.summary` frame (task, method, accuracy, low, high; shares from 0 to 1), one row each.
        ax: where to draw; default a new figure.
        style: to `Axes.errorbar`, all tasks.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not a share, or a task and method come twice.
    """
    columns = ["task", "method", "accuracy", "low", "high"]
    check_frame(summary, "summary", columns)
    check_finite(summary, "summary", columns[2:])
    for column in columns[2:]:
        if not summary[column].between(0, 1).all():
            raise DPCInterpError(f"the summary frame's column {column!r} must hold shares from 0 to 1")
    if summary.duplicated(["task", "method"]).any():
        raise DPCInterpError("the summary frame's column 'method' names a method twice on one task; give one row each")
    methods = [str(method) for method in summary["method"].drop_duplicates()]
    tasks = list(summary["task"].drop_duplicates())

    with drawing_axes(ax, (COLUMN_WIDTH, 0.7 + 0.36 * len(methods))) as axes:
        shifts = SPREAD * (np.arange(len(tasks)) / max(1, len(tasks) - 1) - 0.5) if len(tasks) > 1 else np.zeros(1)
        for i, task in enumerate(tasks):
            rows = summary[summary["task"] == task]
            middle = 100 * rows["accuracy"].to_numpy(dtype=np.float64)
            below = middle - 100 * rows["low"].to_numpy(dtype=np.float64)
            above = 100 * rows["high"].to_numpy(dtype=np.float64) - middle
            heights = [methods.index(str(method)) + float(shifts[i]) for method in rows["method"]]
            look = {"color": PALETTE[i % len(PALETTE)], "fmt": MARKERS[i % len(MARKERS)], "elinewidth": 0.8}
            axes.errorbar(middle, heights, xerr=np.maximum([below, above], 0.0), label=str(task), **{**look, **style})
        for edge in range(1, len(methods)):
            axes.axhline(edge - 0.5, color="0.9", linewidth=0.5, zorder=0)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("accuracy (%), 95% interval")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(tasks)), handlelength=1.2)
    return axes
