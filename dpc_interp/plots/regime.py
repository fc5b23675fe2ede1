"""The regime of an experiment: what the model does alone, asked to reason, and with the prompt, by task."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.plots.frames import check_frame
from dpc_interp.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, SeriesStyle, drawing_axes

SHARES: Mapping[str, SeriesStyle] = MappingProxyType(
    {
        "bare": SeriesStyle("bare, right", GREY, "-", "v"),
        "instruct": SeriesStyle("instruct, right", BLUE, "-", "s"),
        "pt": SeriesStyle("pt, right", BLACK, "-", "o"),
        "helped": SeriesStyle("helped", GREEN, "-", "^"),
        "harmed": SeriesStyle("harmed", VERMILLION, "-", "X"),
        "late_texts": SeriesStyle("changed by the cut-off", ORANGE, "-", "D"),
    }
)
"""Column of the frame of `regime` -> how its points are drawn."""


def plot_regime(frame: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Shares of answers by task with 95% intervals; see `dpc_interp.regime`.

    Args:
        frame: frame of `regime`.
        ax: axes to draw on; None: the current ones.
        style: keyword arguments of `Axes.errorbar`.

    Returns:
        The axes.

    Raises:
        DPCInterpError: the frame is empty or lacks a column.

    Example:
        >>> import pandas as pd
        >>> from dpc_interp import plots
        >>> shares = ("bare", "instruct", "pt", "helped", "harmed", "late_texts")
        >>> row = {f"{share}{end}": 0.5 for share in shares for end in ("", "_low", "_high")}
        >>> plots.plot_regime(pd.DataFrame([{"task": "story", **row}])).get_ylabel()
        'share of answers (%)'
    """
    check_frame(frame, "regime", ["task", *(f"{share}{end}" for share in SHARES for end in ("", "_low", "_high"))])
    with drawing_axes(ax) as axes:
        positions = np.arange(len(frame))
        for k, (share, look) in enumerate(SHARES.items()):
            value, low, high = (100 * frame[f"{share}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            drawn: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": "none", "markersize": 4}
            drawn["clip_on"] = False  # shares of 0 and 1 are common
            x = positions + (k - (len(SHARES) - 1) / 2) / (len(SHARES) + 2)
            axes.errorbar(x, value, yerr=[value - low, high - value], label=look.label, **drawn | style)
        axes.set_xticks(positions, frame["task"].astype(str).tolist())
        axes.set(ylabel="share of answers (%)", ylim=(0, 100))
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return axes
