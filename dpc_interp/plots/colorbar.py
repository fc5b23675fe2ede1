"""The scale of colour and its bar: one beside a heat map, or one shared by several that have the same limits."""

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
    """A logarithmic scale of `decades` powers of ten up to `vmax`, or to the largest of `values`; flow spans many.

    Raises:
        DPCInterpError: nothing in `what` lies above zero.
    """
    peak = float(np.max(values)) if vmax is None else vmax
    if peak <= 0:
        raise DPCInterpError(f"the {what} has no value above zero; look at other layers or instances")
    return LogNorm(peak / 10**decades, peak, clip=True)


def add_colorbar(ax: Axes | Sequence[Axes] | NDArray[Any], *, label: str = "", **style: Any) -> Colorbar:
    """A colour bar for the heat map, or the token boxes, of the first of `ax`, set beside all of them.

    Draw them with `colorbar=False` and one `vmax`, or the bar is right for the first alone. `style` goes to
    `Figure.colorbar` (`location`, `shrink`, `aspect`, ...).
    """
    axes: list[Axes] = list(np.ravel(np.asarray(ax, dtype=object)))
    drawn = [] if not axes else [*axes[0].images, *(c for c in axes[0].collections if c.get_array() is not None)]
    if not drawn:
        raise DPCInterpError("no heat map on these axes; draw plot_case, plot_saliency_map or plot_accumulation first")
    bar = axes[0].figure.colorbar(drawn[0], ax=axes, **{"pad": 0.02, "aspect": 25, **style})
    bar.set_label(label, loc="left" if bar.orientation == "horizontal" else "center")  # its power of ten stands right
    bar.outline.set_linewidth(0.4)
    return bar
