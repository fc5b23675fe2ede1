"""Dots with 95% intervals, along either axis, and the named rows that horizontal ones are drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from numpy.typing import ArrayLike


def draw_intervals(
    axes: Axes,
    positions: ArrayLike,
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    horizontal: bool = False,
    **style: Any,
) -> ErrorbarContainer:
    """Draw dots at `values`, each with a line from `low` to `high`.

    Args:
        axes: where to draw.
        positions: position of each dot on the other axis, [n].
        values: estimates, [n].
        low: lower bounds, [n].
        high: upper bounds, [n].
        horizontal: whether the intervals run along the x axis.
        style: keywords of `Axes.errorbar` (`fmt`, `color`, `label`, ...).

    Returns:
        The dots and lines, as `Axes.errorbar` returns them.
    """
    centers, lower, upper = (np.asarray(bound, dtype=np.float64) for bound in (values, low, high))
    # A bootstrap interval need not contain its estimate, and matplotlib raises for a negative length.
    lengths = np.maximum([centers - lower, upper - centers], 0.0)
    keywords = {"elinewidth": 0.8, **style}
    if horizontal:
        return axes.errorbar(centers, positions, xerr=lengths, **keywords)
    return axes.errorbar(positions, centers, yerr=lengths, **keywords)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of horizontal intervals on the y axis, the first on top.

    Args:
        axes: where the intervals are drawn.
        names: name of each row.
    """
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def separate_rows(axes: Axes, n_rows: int) -> None:
    """Draw a thin line between each two of `n_rows` rows."""
    for row in range(1, n_rows):
        axes.axhline(row - 0.5, color="0.9", linewidth=0.5, zorder=0)
