"""Whether the accumulation token matters: the accuracy change when each virtual token is masked, and its accumulation.

See docs/method.md, section 7.4; the frame is that of `single_tokens`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_finite, check_frame, matrix
from dpc_interp.plots.intervals import draw_intervals
from dpc_interp.plots.style import BLUE, COLUMN_WIDTH, GREY, drawing_axes
from dpc_interp.plots.virtual_tokens import draw_token_bars, set_token_axis

NUMBERS = ["difference", "difference_low", "difference_high"]
COLUMNS = ["virtual_token", "accumulation", *NUMBERS]


def plot_single_tokens(frame: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Accuracy change (percentage points, 95% interval) by masked token; the bars are its accumulation in %.

    Args:
        frame: rows of `single_tokens` of one model, task and prompt.
        ax: where to draw; None: a new figure. The right-hand axis is its twin.
        style: keywords of `Axes.errorbar`.

    Returns:
        The axes of the accuracy change.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a number is not finite, or a token occurs twice.
    """
    check_frame(frame, "single tokens", COLUMNS)
    check_finite(frame, "single tokens", COLUMNS)
    if frame["virtual_token"].duplicated().any():
        raise DPCInterpError(
            "the single tokens frame's column 'virtual_token' holds a token twice; give the rows of one prompt"
        )
    tokens = frame["virtual_token"].to_numpy()
    percent = 100 * frame["accumulation"].to_numpy(dtype=float)
    with drawing_axes(ax, (COLUMN_WIDTH, 2.3)) as axes:
        top = 2.5 * (percent.max() or 1.0)  # the bars stay below most marks
        draw_token_bars(axes, tokens, percent, top=top, ylabel="accumulation (% of the prompt's)")
        axes.axhline(0, color=GREY, linewidth=0.6)
        draw_intervals(axes, tokens, *(100 * matrix(frame[NUMBERS]).T), **{"color": BLUE, "fmt": "o", **style})
        set_token_axis(axes, "masked virtual token $j$")
        axes.set_ylabel("accuracy change (points)")
    return axes
