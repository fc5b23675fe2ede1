"""Where information accumulates (docs/method.md, section 3): acc_l(j), mean over i in Q and R of I_l(i, j).

l is a layer, j a virtual token; Q and R are the question and the rationale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, layer_span, matrix, select_layers
from dpc_interp.plots.style import BLUE, GREY, drawing_axes
from dpc_interp.plots.virtual_tokens import draw_token_bars, set_token_axis
from dpc_interp.stats.bootstrap import mean_interval

COLUMNS = ["instance", "layer", "virtual_token", "value"]
SINK_MARKS: dict[str, Any] = {
    "color": GREY,
    "marker": "o",
    "linestyle": "none",
    "markerfacecolor": "white",
    "zorder": 3,
}


def plot_accumulation(
    frame: pd.DataFrame,
    *,
    ax: Axes | None = None,
    vmax: float | None = None,
    decades: float = 3.0,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """Heat map of the mean accumulation over instances, by layer and virtual token.

    Args:
        frame: `accumulation` frame.
        ax: where to draw; None: a new figure.
        vmax: accumulation at the upper end of the colour scale; None: the largest mean.
        decades: powers of ten that the logarithmic colour scale spans below `vmax`.
        colorbar: draw a colour bar; `add_colorbar` draws one for several maps.
        style: keywords of `Axes.imshow`.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or none is above zero.

    Example:
        >>> import pandas as pd
        >>> from dpc_interp import plots
        >>> rows = {"instance": "a", "layer": [0, 0, 1, 1], "virtual_token": [0, 1, 0, 1], "value": [4.0, 1, 2, 1]}
        >>> plots.plot_accumulation(pd.DataFrame(rows)).images[0].get_array().tolist()
        [[4.0, 1.0], [2.0, 1.0]]
    """
    check_frame(frame, "accumulation", COLUMNS)
    check_finite(frame, "accumulation", ["value"])
    table = frame.pivot_table(index="layer", columns="virtual_token", values="value", aggfunc="mean", observed=True)
    layers, tokens = [int(layer) for layer in table.index], [int(token) for token in table.columns]
    with drawing_axes(ax) as axes:
        keywords = {
            "origin": "lower",
            "aspect": "auto",
            "extent": (tokens[0] - 0.5, tokens[-1] + 0.5, layers[0] - 0.5, layers[-1] + 0.5),
            "cmap": "viridis",
            "norm": log_norm(matrix(table), vmax, decades, "accumulation frame"),
        }
        axes.imshow(matrix(table), **{**keywords, **style})
        set_token_axis(axes)
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
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

    Hollow grey markers are left out as attention sinks; the dashed grey line is the mean over the other tokens. The
    bars, on the right-hand axis, are the share of instances whose accumulation token it is: the token with the largest
    accumulation.

    Args:
        frame: `accumulation` frame.
        shallow: the layers to average over.
        ax: where to draw; None: a new figure. The right-hand axis is its twin.
        exclude: virtual tokens that cannot be the accumulation token, as `Analysis.sinks`; they are drawn all the same.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for the line.

    Returns:
        The axes of the line.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, the frame lacks one of the
            layers, or all tokens are excluded.
    """
    check_frame(frame, "accumulation", COLUMNS)
    check_finite(frame, "accumulation", ["value"])
    rows, layers = select_layers(frame, "accumulation", shallow)
    table = by_instance(rows, "virtual_token")
    tokens, values = table.columns.to_numpy(), matrix(table)
    is_candidate = ~np.isin(tokens, list(exclude))
    percent = _percent_peaking(values, is_candidate)
    mean, low, high = mean_interval(values, seed=seed)

    with drawing_axes(ax) as axes:
        draw_token_bars(axes, tokens, percent, top=100, ylabel="instances peaking here (%)")
        axes.fill_between(tokens, low, high, color=BLUE, alpha=0.25, linewidth=0)
        (line,) = axes.plot(tokens, mean, **{"color": BLUE, "marker": "o", "label": "mean, 95% band", **style})
        level = axes.axhline(
            float(mean[is_candidate].mean()), color=GREY, linestyle="--", linewidth=0.8, label="over tokens"
        )
        handles = [line, level]
        if not is_candidate.all():
            handles += axes.plot(tokens[~is_candidate], mean[~is_candidate], **SINK_MARKS, label="sink")
        axes.set_ylim(0, 1.25 * float(np.nanmax(high)))  # room for the legend
        set_token_axis(axes)
        axes.set_ylabel(f"acc$(j)$, {layer_span(layers)}")
        axes.legend(
            handles=handles, loc="upper center", ncols=3, handlelength=1.3, handletextpad=0.4, columnspacing=0.8
        )
    return axes


def _percent_peaking(values: NDArray[np.float64], is_candidate: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Percent of instances [token] whose largest accumulation in `values` [instance, token] is at each candidate."""
    if not is_candidate.any():
        raise DPCInterpError("all virtual tokens of the accumulation frame are excluded; exclude fewer")
    peaks = np.nanargmax(np.where(is_candidate, values, -np.inf), axis=1)
    return 100 * np.bincount(peaks, minlength=values.shape[1]) / len(values)
