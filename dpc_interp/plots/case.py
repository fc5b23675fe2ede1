"""One instance, token by token: its rationale line by line, each token in a box coloured by the flow from the prompt.

The colour of token t, on a logarithmic scale, is the mean over the layers of f_l(t), itself the mean over j in P of
I_l(t, j). Type and boxes
are set in points from the upper left corner of the axes, so that text is of one size in every figure, however large the
axes. Line ends are shown as "↵"; a black bar stands before the first token of the late half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, BboxTransformTo, ScaledTranslation, Transform
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.frames import check_finite, check_frame, layer_span, select_layers
from dpc_interp.plots.style import COLUMN_WIDTH, drawing_axes

POINTS = 72
"""Points in an inch."""
ADVANCE = 0.6021
"""Width of a character of DejaVu Sans Mono, in ems."""
LEADING = 1.6
"""Distance of two lines, in ems."""
INDENT = 2
"""Characters by which the rest of a line that is too long is set in."""


def plot_case(
    tokens: pd.DataFrame,
    *,
    ax: Axes | None = None,
    layers: Sequence[int] | None = None,
    title: str | None = None,
    vmax: float | None = None,
    decades: float = 4.0,
    columns: int | None = None,
    fontsize: float = 7.0,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """The rationale of the one instance in `tokens`, each token on the colour of the flow it receives from the prompt.

    Args:
        tokens: `tokens` frame of one instance (instance, layer, position, token, value; late where known).
        ax: where to draw; default a new figure one column wide and as high as the text needs (else see `case_height`).
        layers: averaged over these; default the last third.
        title: default the instance's id.
        vmax: flow at the end of the colour scale; default the largest shown.
        decades: the scale spans this many powers of ten below `vmax`; smaller flow, zero too, takes its first colour.
        columns: characters in a line before it is broken; default what the axes hold.
        fontsize: points.
        colorbar: draw a colour bar under the text; `add_colorbar` draws one for several cases.
        style: to `PolyCollection`, the boxes (`cmap`, `edgecolor`, ...).

    Raises:
        DPCInterpError: a column is missing, there are no rows, several instances, a value that is not finite, or no
            flow above zero.
    """
    check_frame(tokens, "tokens", ["instance", "layer", "position", "token", "value"])
    check_finite(tokens, "tokens", ["value"])
    if (tokens["instance"] != tokens["instance"].iloc[0]).any():
        raise DPCInterpError("the tokens frame's column 'instance' holds several instances; choose the rows of one")
    chosen, layers = select_layers(tokens, "tokens", layers)
    ordered = chosen.groupby("position", sort=True)
    names = [str(name) for name in ordered["token"].first()]
    flow = ordered["value"].mean().to_numpy(dtype=np.float64)

    norm = log_norm(flow, vmax, decades, "tokens frame")

    advance, leading = ADVANCE * fontsize, LEADING * fontsize
    if columns is None:
        width = COLUMN_WIDTH - 0.15 if ax is None else ax.get_window_extent().width / ax.figure.dpi
        columns = max(8, int(width * POINTS / advance))
    figsize = (COLUMN_WIDTH, case_height(names, columns=columns, fontsize=fontsize) + 0.28 + 0.5 * colorbar)
    with drawing_axes(ax, figsize) as axes:
        places = lay_out(names, columns)
        points = _points_from_corner(axes)
        boxes = PolyCollection(
            [
                _box(line * leading, column * advance, _width(name) * advance, leading)
                for name, (line, column) in zip(names, places, strict=True)
            ],
            transform=points,
            clip_on=False,
            **{"array": flow, "norm": norm, "cmap": "YlGnBu", "edgecolor": "white", "linewidth": 0.5, **style},
        )
        boxes.set_in_layout(False)
        axes.add_collection(boxes, autolim=False)
        inks = _ink(np.asarray(boxes.to_rgba(flow)))
        for name, (line, column), ink in zip(names, places, inks, strict=True):
            shown = _shown(name)
            lead = len(shown) - len(shown.lstrip())
            axes.text(
                (column + lead) * advance,
                -(line + 0.5) * leading,
                shown.strip(),
                transform=points,
                family="monospace",
                fontsize=fontsize,
                va="center_baseline",
                color=ink,
                parse_math=False,
            ).set_in_layout(False)
        if "late" in chosen and chosen["late"].any():
            line, column = places[int(np.argmax(ordered["late"].first().to_numpy(dtype=bool)))]
            x, top = column * advance, -line * leading
            bar = Line2D([x, x], [top, top - leading], transform=points, color="black", linewidth=1.5, clip_on=False)
            bar.set_in_layout(False)
            axes.add_line(bar)
        axes.set_axis_off()
        axes.set_title(str(tokens["instance"].iloc[0]) if title is None else title, loc="left")
        if colorbar:
            name = f"flow from the prompt, {layer_span(layers)}"
            add_colorbar(axes, label=name, location="bottom", aspect=40, fraction=0.08, extend="min")
    return axes


def case_height(tokens: Sequence[str], *, columns: int, fontsize: float = 7.0) -> float:
    """Inches that `plot_case` needs for the text alone, without title and colour bar."""
    return (1 + max(line for line, _ in lay_out(tokens, columns))) * LEADING * fontsize / POINTS


def lay_out(tokens: Sequence[str], columns: int) -> list[tuple[int, int]]:
    """Line and column of each token: one that holds a line end closes its line; a full line goes on below, set in."""
    places, line, column = [], 0, 0
    for token in tokens:
        if column > INDENT and column + _width(token) > columns:
            line, column = line + 1, INDENT
        places.append((line, column))
        column += _width(token)
        if "\n" in token:
            line, column = line + 1, 0
    return places


def _shown(token: str) -> str:
    """The token as set: line ends as a sign, other white space as spaces."""
    return "".join("↵" if sign == "\n" else " " if sign.isspace() else sign for sign in token)


def _width(token: str) -> int:
    return max(1, len(token))


def _box(top: float, left: float, width: float, height: float) -> list[tuple[float, float]]:
    """Corners of a box, y upwards, with half a point free above and below."""
    low, high = -top - height + 0.5, -top - 0.5
    return [(left, low), (left + width, low), (left + width, high), (left, high)]


def _points_from_corner(ax: Axes) -> Transform:
    """Points, counted from the upper left corner of `ax` wherever the layout puts it, to display."""
    inches = Affine2D().scale(1 / POINTS)
    return inches + ax.figure.dpi_scale_trans + ScaledTranslation(0, 1, BboxTransformTo(ax.bbox))


def _ink(colors: NDArray[np.float64]) -> list[str]:
    """Black or white, whichever reads better on each of `colors` [n, 4] (relative luminance, Rec. 709)."""
    luminance = ((colors[:, :3] + 0.055) / 1.055) ** 2.4 @ [0.2126, 0.7152, 0.0722]
    return ["black" if light > 0.18 else "white" for light in luminance]
