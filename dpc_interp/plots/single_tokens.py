"""Does the accumulation token matter? What masking each virtual token changes, beside what accumulates there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_finite, check_frame
from dpc_interp.plots.style import BLUE, COLUMN_WIDTH, GREY, drawing_axes

COLUMNS = ["virtual_token", "accumulation", "difference", "difference_low", "difference_high"]


def plot_single_tokens(frame: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Accuracy change (points, 95% interval) by the token that is masked; bars, on the right: its accumulation in %.

    Args:
        frame: rows of `single_tokens` of one model, task and prompt.
        ax: where to draw; default a new figure. The right-hand axis is its twin.
        style: to `Axes.errorbar`.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a number is not finite, or a token comes twice.
    """
    check_frame(frame, "single tokens", COLUMNS)
    check_finite(frame, "single tokens", COLUMNS)
    if frame["virtual_token"].duplicated().any():
        raise DPCInterpError(
            "the single tokens frame's column 'virtual_token' holds a token twice; give the rows of one prompt"
        )
    tokens = frame["virtual_token"].to_numpy()
    middle = 100 * frame["difference"].to_numpy(dtype=np.float64)
    below = middle - 100 * frame["difference_low"].to_numpy(dtype=np.float64)
    above = 100 * frame["difference_high"].to_numpy(dtype=np.float64) - middle
    with drawing_axes(ax, (COLUMN_WIDTH, 2.3)) as axes:
        twin = axes.twinx()
        share = 100 * frame["accumulation"].to_numpy(dtype=np.float64)
        twin.bar(tokens, share, width=0.7, color="0.85")
        twin.set_ylim(0, 2.5 * (share.max() or 1.0))  # the bars stay below most marks
        twin.set_ylabel("accumulation (% of the prompt's)", color=GREY)
        twin.tick_params(axis="y", colors=GREY)
        twin.spines["right"].set(visible=True, color=GREY)
        axes.set_zorder(twin.get_zorder() + 1)  # the marks before the bars
        axes.patch.set_visible(False)
        axes.axhline(0, color=GREY, linewidth=0.6)
        look = {"color": BLUE, "fmt": "o", "elinewidth": 0.8}
        axes.errorbar(tokens, middle, np.maximum([below, above], 0.0), **{**look, **style})
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("masked virtual token $j$")
        axes.set_ylabel("accuracy change (points)")
    return axes
