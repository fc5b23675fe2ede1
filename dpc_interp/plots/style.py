"""One style for all figures: a colour-blind safe palette (Okabe and Ito), a style sheet and byte-identical files.

Whatever differs in colour also differs in marker, dash or hatch. A plot made without `ax` is drawn in the packaged
style; a plot drawn into a given `ax` takes the caller's style. Draw and save inside `style_context()`: matplotlib
embeds fonts and fixes SVG ids when it writes the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import matplotlib.pyplot as plt
import matplotlib.style
from matplotlib.axes import Axes

from dpc_interp.plots.fonts import STYLE, installed, one_warning_for_glyphs, use_fallback_fonts

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
Dash = Literal["-", "--", "-.", ":"] | tuple[float, Sequence[float]]
"""A line style in matplotlib's notation: a string, or an offset and the lengths of dashes and gaps in points."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
GREY = "0.45"
COLUMN_WIDTH = 3.3
"""Width of one column of a two-column page, in inches."""
STABLE_METADATA = MappingProxyType({"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}})
"""File format -> the `metadata` of `Figure.savefig` that omits the date, so that equal figures have equal bytes."""


@dataclass(frozen=True)
class SeriesStyle:
    """How one series is drawn.

    Attributes:
        label: its name in the legend.
        color: any colour of matplotlib.
        dash: line style.
        marker: marker.
    """

    label: str
    color: str
    dash: Dash
    marker: str

    def line(self) -> dict[str, Any]:
        """Colour, line style and marker as keywords of `Axes.plot`."""
        return {"color": self.color, "linestyle": self.dash, "marker": self.marker}


RIGHT = SeriesStyle("right", BLUE, "-", "o")
WRONG = SeriesStyle("wrong", VERMILLION, "--", "s")
OUTCOMES = MappingProxyType({True: RIGHT, False: WRONG})
"""Value of the column `correct` -> how these instances are drawn in every figure."""


def series_style(index: int, label: str = "") -> SeriesStyle:
    """The style of the series with this index; after seven, colours repeat with other dashes and markers.

    Args:
        index: number of the series in its plot, from 0.
        label: its name in the legend.
    """
    shifted = index + index // len(PALETTE)
    color, dash, marker = PALETTE[index % len(PALETTE)], DASHES[shifted % len(DASHES)], MARKERS[shifted % len(MARKERS)]
    return SeriesStyle(label, color, dash, marker)


@contextmanager
def style_context() -> Iterator[None]:
    """Context that sets the packaged style over matplotlib's defaults and restores the caller's settings on exit.

    Characters that no installed font of the style has are drawn as boxes, and one warning names the font to install.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from dpc_interp import plots
        >>> with plots.style_context():
        ...     figure = plt.figure()
        >>> float(figure.get_figwidth())
        3.3
        >>> plt.close(figure)
    """
    with matplotlib.style.context(STYLE, after_reset=True), one_warning_for_glyphs():
        plt.rcParams["font.sans-serif"] = installed(plt.rcParams["font.sans-serif"])
        yield


@contextmanager
def drawing_axes(ax: Axes | None, figsize: tuple[float, float] | None = None) -> Iterator[Axes]:
    """Context that yields `ax` in the caller's style, or the axes of a new figure in the packaged style.

    Args:
        ax: the axes to draw into; None: those of a new figure.
        figsize: width and height of the new figure in inches; None: that of the style sheet.
    """
    if ax is not None:
        yield ax
        use_fallback_fonts(ax)
        return
    with style_context():
        axes = plt.subplots(figsize=figsize)[1]
        yield axes
        use_fallback_fonts(axes)


def note_size() -> float | str:
    """Font size of numbers and notes inside axes, equal to that of the legend."""
    size: float | str = plt.rcParams["legend.fontsize"]
    return size
