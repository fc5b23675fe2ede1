"""Accuracy of each method on each task, a dot with its 95% interval (docs/method.md, section 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_finite, check_frame, matrix
from dpc_interp.plots.intervals import draw_intervals, name_rows, separate_rows
from dpc_interp.plots.style import COLUMN_WIDTH, drawing_axes, series_style

ROW_SPREAD = 0.6
"""Height that the tasks of one method are spread over; rows are 1 apart."""


def plot_accuracy(summary: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Accuracy with its interval in %, methods as rows (the first on top), tasks by colour and marker.

    Args:
        summary: `summary` frame of `Results` (task, method, accuracy, low, high; shares from 0 to 1), one row each.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.errorbar` for all tasks.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not a share, or a method has several rows
            on one task.

    Example:
        >>> import pandas as pd
        >>> from dpc_interp import plots
        >>> rows = {"task": "story", "method": ["pt", "dpc"], "accuracy": [0.5, 0.75], "low": 0.4, "high": 0.9}
        >>> plots.plot_accuracy(pd.DataFrame(rows)).containers[0].lines[0].get_xdata().tolist()
        [50.0, 75.0]
    """
    shares = ["accuracy", "low", "high"]
    check_frame(summary, "summary", ["task", "method", *shares])
    check_finite(summary, "summary", shares)
    for column in shares:
        if not summary[column].between(0, 1).all():
            raise DPCInterpError(f"the summary frame's column {column!r} must hold shares from 0 to 1")
    if summary.duplicated(["task", "method"]).any():
        raise DPCInterpError("the summary frame's column 'method' names a method twice on one task; give one row each")
    methods = [str(method) for method in summary["method"].drop_duplicates()]
    tasks = list(summary["task"].drop_duplicates())
    shifts = ROW_SPREAD * (np.arange(len(tasks)) / max(1, len(tasks) - 1) - 0.5) if len(tasks) > 1 else np.zeros(1)

    with drawing_axes(ax, (COLUMN_WIDTH, 0.7 + 0.36 * len(methods))) as axes:
        for i, task in enumerate(tasks):
            rows = summary[summary["task"] == task]
            heights = [methods.index(str(method)) + float(shifts[i]) for method in rows["method"]]
            series = series_style(i)
            keywords = {"color": series.color, "fmt": series.marker, "label": str(task), **style}
            draw_intervals(axes, heights, *(100 * matrix(rows[shares]).T), horizontal=True, **keywords)
        separate_rows(axes, len(methods))
        name_rows(axes, methods)
        axes.set_xlabel("accuracy (%), 95% interval")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(tasks)), handlelength=1.2)
    return axes
