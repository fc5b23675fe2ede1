"""Where information gathers (METHOD 3): acc_l(j), mean over i in Q and R of I_l(i, j), by layer and virtual token j."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, layer_span, matrix, select_layers
from dpc_interp.plots.style import BLUE, GREY, drawing_axes

COLUMNS = ["instance", "layer", "virtual_token", "value"]


def plot_accumulation(
    frame: pd.DataFrame,
    *,
    ax: Axes | None = None,
    vmax: float | None = None,
    decades: float = 3.0,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """Heat map, layer by virtual token, of the mean over instances of the `accumulation` frame.

    `vmax` ends the colour scale, which is logarithmic and spans `decades` powers of ten; `style` goes to `Axes.imshow`.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or none is above zero.
    """
    check_frame(frame, "accumulation", COLUMNS)
    check_finite(frame, "accumulation", ["value"])
    table = frame.pivot_table(index="layer", columns="virtual_token", values="value", aggfunc="mean", observed=True)
    rows, columns = [int(layer) for layer in table.index], [int(token) for token in table.columns]
    with drawing_axes(ax) as axes:
        extent = (columns[0] - 0.5, columns[-1] + 0.5, rows[0] - 0.5, rows[-1] + 0.5)
        axes.imshow(
            matrix(table),
            **{
                "origin": "lower",
                "aspect": "auto",
                "extent": extent,
                "cmap": "viridis",
                "norm": log_norm(matrix(table), vmax, decades, "accumulation frame"),
                **style,
            },
        )
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("virtual token $j$")
        axes.set_ylabel("layer")
        if colorbar:
            add_colorbar(axes, label="mean flow received, acc$(j)$", extend="min")
    return axes


def plot_accumulation_profile(
    frame: pd.DataFrame,
    *,
    shallow: Sequence[int],
    ax: Axes | None = None,
    exclude: Sequence[int] = (),
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Mean accumulation over the shallow layers by virtual token, with its 95% band over instances.

    The grey line is the mean over tokens; the bars, on the right-hand axis, are the share of instances whose largest
    accumulation is at that token.

    Args:
        frame: `accumulation` frame.
        shallow: the layers averaged over.
        ax: where to draw; default a new figure. The right-hand axis is its twin.
        exclude: virtual tokens left out of the argmax (an attention sink); they stay on the line.
        seed: of the bootstrap.
        style: to `Axes.plot`, the line.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or no such layer.
    """
    check_frame(frame, "accumulation", COLUMNS)
    check_finite(frame, "accumulation", ["value"])
    chosen, layers = select_layers(frame, "accumulation", shallow)
    table = by_instance(chosen, "virtual_token")
    tokens = table.columns.to_numpy()
    values = matrix(table)
    candidates = ~np.isin(tokens, list(exclude))
    if not candidates.any():
        raise DPCInterpError("the accumulation frame's column 'virtual_token' holds no token that is not excluded")
    peaks = np.nanargmax(np.where(candidates, values, -np.inf), axis=1)
    share = 100 * np.bincount(peaks, minlength=len(tokens)) / len(values)
    mean, low, high = mean_interval(values, seed=seed)

    with drawing_axes(ax) as axes:
        twin = axes.twinx()
        twin.bar(tokens, share, width=0.7, color="0.85", label="share of instances peaking at $j$")
        twin.set_ylim(0, 100)
        twin.set_ylabel("instances peaking here (%)", color=GREY)
        twin.tick_params(axis="y", colors=GREY)
        twin.spines["right"].set(visible=True, color=GREY)
        axes.set_zorder(twin.get_zorder() + 1)  # the line before the bars
        axes.patch.set_visible(False)
        axes.fill_between(tokens, low, high, color=BLUE, alpha=0.25, linewidth=0)
        (line,) = axes.plot(tokens, mean, **{"color": BLUE, "marker": "o", "label": "mean, 95% band", **style})
        level = axes.axhline(float(mean.mean()), color=GREY, linestyle="--", linewidth=0.8, label="mean over tokens")
        axes.set_ylim(0, 1.25 * float(np.nanmax(high)))  # room for the legend
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("virtual token $j$")
        axes.set_ylabel(f"acc$(j)$, {layer_span(layers)}")
        axes.legend(handles=[line, level], loc="upper center", ncols=2, handlelength=1.6)
    return axes
