"""A saliency map of one layer: rows are destinations, columns sources, on a logarithmic scale of colour.

Only causal pairs off the diagonal are shown, as they alone carry flow (METHOD 2). Segment borders are drawn and the
segments named by their initials: P | Q | R | A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from dpc_interp.errors import DPCInterpError, NonFiniteError
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.style import COLUMN_WIDTH, drawing_axes


def plot_saliency_map(
    matrix: ArrayLike,
    *,
    borders: Mapping[str, tuple[int, int]],
    ax: Axes | None = None,
    vmax: float | None = None,
    cmap: str | Colormap = "viridis",
    decades: float = 4.0,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """Draw `matrix` [destination, source], one layer of a saliency map, with its segments.

    Args:
        matrix: float, not negative, finite.
        borders: segment name to (start, stop) positions; empty segments are left out.
        ax: where to draw; default a new figure one column wide.
        vmax: value at the end of the colour scale; default the largest shown.
        cmap: colour map.
        decades: the scale spans this many powers of ten below `vmax`; smaller values, zero too, take its first colour.
        colorbar: draw a colour bar; `add_colorbar` draws one for several maps.
        style: to `Axes.imshow`.

    Raises:
        DPCInterpError: not a square matrix, nothing above zero, or a segment beyond its positions.
        NonFiniteError: NaN or infinity in `matrix`.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise DPCInterpError(f"a saliency map is square, [destination, source]; got shape {list(values.shape)}")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the saliency map holds {int((~np.isfinite(values)).sum())} values that are not finite")
    segments = {name: span for name, span in borders.items() if span[1] > span[0]}
    for name, (start, stop) in segments.items():
        if start < 0 or stop > len(values):
            raise DPCInterpError(f"segment {name!r} spans {start} to {stop}, but the map has {len(values)} positions")
    shown = np.ma.masked_array(values, mask=np.triu(np.ones(values.shape, dtype=bool)))
    norm = log_norm(shown.filled(0.0), vmax, decades, "saliency map below its diagonal")

    with drawing_axes(ax, (COLUMN_WIDTH, 2.75)) as axes:
        colors = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap
        axes.imshow(shown, **{"norm": norm, "cmap": colors.with_extremes(bad="white"), "aspect": "equal", **style})
        edges = sorted({edge for span in segments.values() for edge in span} - {0, len(values)})
        for edge in edges:
            axes.axhline(edge - 0.5, color="0.35", linewidth=0.6)
            axes.axvline(edge - 0.5, color="0.35", linewidth=0.6)
        middles = [(start + stop - 1) / 2 for start, stop in segments.values()]
        initials = [name[:1].upper() for name in segments]
        axes.set_xticks(middles, initials)
        axes.set_yticks(middles, initials)
        axes.tick_params(length=0)
        axes.set_xlabel("source")
        axes.set_ylabel("destination")
        if colorbar:
            add_colorbar(axes, label="saliency flow $I$", extend="min")
    return axes
