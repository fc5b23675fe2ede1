"""The axis of virtual tokens, and the grey bars of a second quantity that share it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dpc_interp.plots.style import GREY


def set_token_axis(axes: Axes, name: str = "virtual token $j$") -> None:
    """Put whole numbers of virtual tokens on the x axis.

    Args:
        axes: where to draw.
        name: label of the axis.
    """
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel(name)


def draw_token_bars(axes: Axes, tokens: ArrayLike, percent: ArrayLike, *, top: float, ylabel: str) -> Axes:
    """Draw grey bars with their own axis on the right, below what `axes` draws.

    Args:
        axes: the axes whose x axis the bars share.
        tokens: virtual tokens, [n].
        percent: height of each bar, [n].
        top: upper end of the right-hand axis.
        ylabel: label of the right-hand axis.

    Returns:
        The right-hand axes.
    """
    twin = axes.twinx()
    twin.bar(tokens, percent, width=0.7, color="0.85")
    twin.set_ylim(0, top)
    twin.set_ylabel(ylabel, color=GREY)
    twin.tick_params(axis="y", colors=GREY)
    twin.spines["right"].set(visible=True, color=GREY)
    # matplotlib draws a twin on top: swap the order, and drop the background that would then hide the bars.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    return twin
