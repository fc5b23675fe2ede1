"""One instance token by token: each token of its rationale in a box coloured by the flow from the prompt.

The colour of token t, on a logarithmic scale, is the mean over layers of f_l(t), the mean over j in P of I_l(t, j),
where P are the virtual tokens. Text and boxes are placed in points from the upper left corner of the axes, so that text
has one size in every figure, however large its axes are. Line ends are shown as "↵"; a black bar marks the start of the
late half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, BboxTransformTo, ScaledTranslation, Transform
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.colorbar import add_colorbar, log_norm
from dpc_interp.plots.frames import check_finite, check_frame, layer_span, select_layers
from dpc_interp.plots.style import COLUMN_WIDTH, drawing_axes

FONT_SIZE = 7.0
"""Default font size in points."""
POINTS_PER_INCH = 72
CHARACTER_WIDTH = 0.6021
"""Width of a character of DejaVu Sans Mono, as a multiple of the font size."""
LINE_HEIGHT = 1.6
"""Distance between two lines, as a multiple of the font size."""
INDENT = 2
"""Indentation, in characters, of the continuation of a line that was broken."""


def plot_case(
    tokens: pd.DataFrame,
    *,
    ax: Axes | None = None,
    layers: Sequence[int] | None = None,
    title: str | None = None,
    vmax: float | None = None,
    decades: float = 4.0,
    columns: int | None = None,
    fontsize: float = FONT_SIZE,
    colorbar: bool = True,
    **style: Any,
) -> Axes:
    """The rationale of one instance, each token on the colour of the flow that it receives from the prompt.

    Args:
        tokens: `tokens` frame of one instance (instance, layer, position, token, value; `late` is optional).
        ax: where to draw; None: a new figure, one column wide and as high as the text. `case_height` gives the height
            that given axes need.
        layers: the layers to average over; None: the last third.
        title: title of the axes; None: the id of the instance.
        vmax: flow at the upper end of the colour scale; None: the largest flow shown.
        decades: powers of ten that the scale spans below `vmax`; smaller flow, also zero, takes its first colour.
        columns: characters of a line before it is broken; None: as many as fit the axes.
        fontsize: font size in points.
        colorbar: draw a colour bar below the text; `add_colorbar` draws one for several cases.
        style: keywords of `PolyCollection` for the boxes (`cmap`, `edgecolor`, ...).

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, there are several instances, a value is not finite, or
            no flow is above zero.
    """
    check_frame(tokens, "tokens", ["instance", "layer", "position", "token", "value"])
    check_finite(tokens, "tokens", ["value"])
    if (tokens["instance"] != tokens["instance"].iloc[0]).any():
        raise DPCInterpError("the tokens frame's column 'instance' holds several instances; choose the rows of one")
    rows, layers = select_layers(tokens, "tokens", layers)
    by_position = rows.groupby("position", sort=True)
    texts = [str(text) for text in by_position["token"].first()]
    flow = by_position["value"].mean().to_numpy(dtype=np.float64)
    norm = log_norm(flow, vmax, decades, "tokens frame")

    if columns is None:
        columns = _columns_that_fit(ax, fontsize)
    figsize = (COLUMN_WIDTH, case_height(texts, columns=columns, fontsize=fontsize) + 0.28 + 0.5 * colorbar)
    with drawing_axes(ax, figsize) as axes:
        places = lay_out(texts, columns)
        boxes = _draw_boxes(axes, texts, places, flow, norm, fontsize, style)
        _write_tokens(axes, texts, places, _text_colors(np.asarray(boxes.to_rgba(flow))), fontsize)
        if "late" in rows and rows["late"].any():
            first_late = int(np.argmax(by_position["late"].first().to_numpy(dtype=bool)))
            _mark_late_half(axes, places[first_late], fontsize)
        axes.set_axis_off()
        axes.set_title(str(tokens["instance"].iloc[0]) if title is None else title, loc="left")
        if colorbar:
            name = f"flow from the prompt, {layer_span(layers)}"
            add_colorbar(axes, label=name, location="bottom", aspect=40, fraction=0.08, extend="min")
    return axes


def case_height(tokens: Sequence[str], *, columns: int, fontsize: float = FONT_SIZE) -> float:
    r"""Height in inches that `plot_case` needs for the text, without title and colour bar.

    Args:
        tokens: the tokens as text, in order.
        columns: characters of a line before it is broken.
        fontsize: font size in points.

    Example:
        >>> from dpc_interp import plots
        >>> two_lines = plots.case_height(["a", "\n", "b"], columns=40)
        >>> round(two_lines / plots.case_height(["a"], columns=40), 6)
        2.0
    """
    return (1 + max(line for line, _ in lay_out(tokens, columns))) * LINE_HEIGHT * fontsize / POINTS_PER_INCH


def lay_out(tokens: Sequence[str], columns: int) -> list[tuple[int, int]]:
    r"""Break tokens into lines: after a line end, and before a token that would exceed the line.

    Args:
        tokens: the tokens as text, in order.
        columns: characters of a line. A longer token that begins a line is not broken.

    Returns:
        Line and column of each token, counted from 0.

    Example:
        >>> from dpc_interp.plots.case import lay_out
        >>> lay_out(["12", " +", " 3", "\n", "15"], columns=5)
        [(0, 0), (0, 2), (1, 2), (1, 4), (2, 0)]
    """
    places, line, column = [], 0, 0
    for token in tokens:
        if column > INDENT and column + _width(token) > columns:
            line, column = line + 1, INDENT
        places.append((line, column))
        column += _width(token)
        if "\n" in token:
            line, column = line + 1, 0
    return places


def _columns_that_fit(ax: Axes | None, fontsize: float) -> int:
    """Characters that fit the width of `ax`, or of a new figure, at least 8."""
    inches = COLUMN_WIDTH - 0.15 if ax is None else ax.get_window_extent().width / ax.figure.dpi
    return max(8, int(inches * POINTS_PER_INCH / (CHARACTER_WIDTH * fontsize)))


def _draw_boxes(
    axes: Axes,
    texts: Sequence[str],
    places: Sequence[tuple[int, int]],
    flow: NDArray[np.float64],
    norm: LogNorm,
    fontsize: float,
    style: dict[str, Any],
) -> PolyCollection:
    """Draw the box of each token in the colour of its flow."""
    width, height = CHARACTER_WIDTH * fontsize, LINE_HEIGHT * fontsize
    corners = [
        _box_corners(line * height, column * width, _width(text) * width, height)
        for text, (line, column) in zip(texts, places, strict=True)
    ]
    keywords = {"array": flow, "norm": norm, "cmap": "YlGnBu", "edgecolor": "white", "linewidth": 0.5, **style}
    boxes = PolyCollection(corners, transform=_points_from_corner(axes), clip_on=False, **keywords)
    # Boxes and text have a fixed size in points: constrained layout must not shrink the axes to make room for them.
    boxes.set_in_layout(False)
    axes.add_collection(boxes, autolim=False)
    return boxes


def _write_tokens(
    axes: Axes, texts: Sequence[str], places: Sequence[tuple[int, int]], colors: Sequence[str], fontsize: float
) -> None:
    """Write each token, without the white space around it, at its place."""
    width, height = CHARACTER_WIDTH * fontsize, LINE_HEIGHT * fontsize
    transform = _points_from_corner(axes)
    for text, (line, column), color in zip(texts, places, colors, strict=True):
        visible = _visible(text)
        n_leading_spaces = len(visible) - len(visible.lstrip())
        axes.text(
            (column + n_leading_spaces) * width,
            -(line + 0.5) * height,
            visible.strip(),
            transform=transform,
            family="monospace",
            fontsize=fontsize,
            va="center_baseline",
            color=color,
            parse_math=False,  # a dollar sign is text
        ).set_in_layout(False)


def _mark_late_half(axes: Axes, place: tuple[int, int], fontsize: float) -> None:
    """Draw a black bar before the first token of the late half."""
    line, column = place
    width, height = CHARACTER_WIDTH * fontsize, LINE_HEIGHT * fontsize
    x, top = column * width, -line * height
    transform = _points_from_corner(axes)
    bar = Line2D([x, x], [top, top - height], transform=transform, color="black", linewidth=1.5, clip_on=False)
    bar.set_in_layout(False)
    axes.add_line(bar)


def _visible(token: str) -> str:
    """The token with line ends as a sign and other white space as spaces."""
    return "".join("↵" if sign == "\n" else " " if sign.isspace() else sign for sign in token)


def _width(token: str) -> int:
    """Characters of a token's box; an empty token still has a box."""
    return max(1, len(token))


def _box_corners(top: float, left: float, width: float, height: float) -> list[tuple[float, float]]:
    """Corners of a box, y upwards, with a gap of half a point above and below."""
    low, high = -top - height + 0.5, -top - 0.5
    return [(left, low), (left + width, low), (left + width, high), (left, high)]


def _points_from_corner(ax: Axes) -> Transform:
    """Transform to display coordinates from points, counted from the upper left corner of `ax`."""
    inches = Affine2D().scale(1 / POINTS_PER_INCH)
    return inches + ax.figure.dpi_scale_trans + ScaledTranslation(0, 1, BboxTransformTo(ax.bbox))


def _text_colors(background: NDArray[np.float64]) -> list[str]:
    """Black or white, whichever has more contrast to each colour of `background` [n, 4]: relative luminance, Rec. 709.

    0.18 is the luminance with the same contrast ratio to black and to white (WCAG 2).
    """
    luminance = ((background[:, :3] + 0.055) / 1.055) ** 2.4 @ [0.2126, 0.7152, 0.0722]
    return ["black" if light > 0.18 else "white" for light in luminance]
