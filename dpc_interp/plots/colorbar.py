"""The colour scale of a heat map, and a colour bar for one map or for several with the same limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from numpy.typing import ArrayLike, NDArray

from dpc_interp.errors import DPCInterpError


def log_norm(values: ArrayLike, vmax: float | None, decades: float, what: str) -> LogNorm:
    """A logarithmic colour scale, since flow spans many powers of ten; smaller values take its first colour.

    Args:
        values: the values on the map.
        vmax: upper end of the scale; None: the largest value.
        decades: powers of ten that the scale spans below its upper end.
        what: what the error message calls the values.

    Returns:
        The scale, which clips values beyond its ends.

    Raises:
        DPCInterpError: no value is above zero.
    """
    upper = float(np.max(values)) if vmax is None else vmax
    if upper <= 0:
        raise DPCInterpError(f"the {what} has no value above zero; look at other layers or instances")
    return LogNorm(upper / 10**decades, upper, clip=True)


def add_colorbar(ax: Axes | Sequence[Axes] | NDArray[Any], *, label: str = "", **style: Any) -> Colorbar:
    """Add a colour bar next to one or several plots.

    The bar shows the scale of the first plot: draw several plots with `colorbar=False` and one `vmax` for all.

    Args:
        ax: the axes of `plot_case`, `plot_saliency_map` or `plot_accumulation`.
        label: what the colours mean.
        style: keywords of `Figure.colorbar` (`location`, `shrink`, `aspect`, ...).

    Returns:
        The colour bar.

    Raises:
        DPCInterpError: the first axes have no heat map.
    """
    axes: list[Axes] = list(np.ravel(np.asarray(ax, dtype=object)))
    mappables = [] if not axes else [*axes[0].images, *(c for c in axes[0].collections if c.get_array() is not None)]
    if not mappables:
        raise DPCInterpError("no heat map on these axes; draw plot_case, plot_saliency_map or plot_accumulation first")
    bar = axes[0].figure.colorbar(mappables[0], ax=axes, **{"pad": 0.02, "aspect": 25, **style})
    # On the left of a horizontal bar, since matplotlib writes the power of ten at its right end.
    bar.set_label(label, loc="left" if bar.orientation == "horizontal" else "center")
    bar.outline.set_linewidth(0.4)
    return bar
