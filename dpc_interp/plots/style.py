"""One style for all figures: a colour-blind safe palette (Okabe-Ito), a style sheet, and how files keep the same bytes.

Colour is never alone: what differs in colour differs in marker, dash or hatch too. A plot made without `ax` is drawn in
the packaged style; one drawn into a given `ax` takes the caller's. Draw and save inside `style_context()`: fonts are
embedded, and SVG ids are fixed, when the file is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import matplotlib.pyplot as plt
import matplotlib.style
from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
GREY = "0.45"
COLUMN_WIDTH = 3.3
"""Inches: one column of a two-column page."""
STABLE_METADATA = MappingProxyType({"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}})
"""By format, the `metadata` for `Figure.savefig` that leaves the date out."""


@dataclass(frozen=True)
class OutcomeStyle:
    """How right, or wrong, instances look in every figure."""

    label: str
    color: str
    dash: Literal["-", "--"]
    marker: str


RIGHT = OutcomeStyle("right", BLUE, "-", "o")
WRONG = OutcomeStyle("wrong", VERMILLION, "--", "s")
OUTCOMES = MappingProxyType({True: RIGHT, False: WRONG})
"""By the value of the column `correct`."""


def style_context() -> AbstractContextManager[None]:
    """The packaged style over matplotlib's defaults; on leaving, the settings are as before."""
    return matplotlib.style.context("dpc_interp.plots.dpc", after_reset=True)


@contextmanager
def drawing_axes(ax: Axes | None, figsize: tuple[float, float] | None = None) -> Iterator[Axes]:
    """`ax` itself, in the caller's style, or the axes of a new figure (inches `figsize`), in the packaged one."""
    if ax is not None:
        yield ax
        return
    with style_context():
        yield plt.subplots(figsize=figsize)[1]


def note_size() -> float | str:
    """Font size of numbers and notes inside axes: that of the legend."""
    size: float | str = plt.rcParams["legend.fontsize"]
    return size
