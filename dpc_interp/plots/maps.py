"""A saliency map: rows are destinations, columns sources, on a logarithmic colour scale (docs/method.md, section 2).

Only causal pairs off the diagonal are shown, since no other pair carries flow. Lines separate the segments, which are
named by their initials: P | Q | R | A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from dpc_interp.errors import DPCInterpError, NonFiniteError, renamed_keywords
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.style import COLUMN_WIDTH, drawing_axes


@renamed_keywords({"borders": "spans"})
def plot_saliency_map(
    matrix: ArrayLike,
    *,
    spans: Mapping[str, tuple[int, int]],
    ax: Axes | None = None,
    vmax: float | None = None,
    cmap: str | Colormap = "viridis",
    decades: float = 4.0,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """Heat map of a saliency map of one layer, or of a mean over layers, with its segments.

    Args:
        matrix: saliency [destination, source], not negative and finite.
        spans: segment name -> (start, stop) positions, see `Segments.spans`; empty segments are left out.
        ax: where to draw; None: a new figure one column wide.
        vmax: value at the upper end of the colour scale; None: the largest value shown.
        cmap: colour map.
        decades: powers of ten that the scale spans below `vmax`; smaller values, also zero, take its first colour.
        colorbar: draw a colour bar; `add_colorbar` draws one for several maps.
        style: keywords of `Axes.imshow`.

    Returns:
        The axes.

    Raises:
        DPCInterpError: the matrix is not square, nothing is above zero, or a segment exceeds the positions.
        NonFiniteError: NaN or infinity in `matrix`.

    Example:
        >>> import numpy as np
        >>> from dpc_interp import plots
        >>> axes = plots.plot_saliency_map(np.tril(np.ones((4, 4))), spans={"prompt": (0, 1), "question": (1, 4)})
        >>> [tick.get_text() for tick in axes.get_xticklabels()]
        ['P', 'Q']
    """
    values = np.asarray(matrix, dtype=np.float64)
    segments = {name: span for name, span in spans.items() if span[1] > span[0]}
    _check(values, segments)
    visible = np.ma.masked_array(values, mask=np.triu(np.ones(values.shape, dtype=bool)))
    norm = log_norm(visible.filled(0.0), vmax, decades, "saliency map below its diagonal")

    with drawing_axes(ax, (COLUMN_WIDTH, 2.75)) as axes:
        colors = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap
        axes.imshow(visible, **{"norm": norm, "cmap": colors.with_extremes(bad="white"), "aspect": "equal", **style})
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


def _check(values: np.ndarray, segments: Mapping[str, tuple[int, int]]) -> None:
    """Check that the map is square and finite, and that the segments lie within it."""
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise DPCInterpError(f"a saliency map is square, [destination, source]; got shape {list(values.shape)}")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the saliency map holds {int((~np.isfinite(values)).sum())} values that are not finite")
    for name, (start, stop) in segments.items():
        if start < 0 or stop > len(values):
            raise DPCInterpError(f"segment {name!r} spans {start} to {stop}, but the map has {len(values)} positions")
