"""Do accumulation and late flow come together on an instance, and is it then wrong? (METHOD 1, claim C3)"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.plots.frames import check_finite, check_frame, check_outcome, label
from dpc_interp.plots.style import COLUMN_WIDTH, OUTCOMES, drawing_axes, note_size


def plot_cooccurrence(
    stats: pd.DataFrame,
    *,
    x: str = "peak_ratio",
    y: str = "late_share",
    kappa: float | None = None,
    alpha: float | None = None,
    ax: Axes | None = None,
    **style: Any,
) -> Axes:
    """Scatter of `y` against `x`, one mark an instance, right or wrong, with the thresholds as lines.

    With both thresholds the corner of each quadrant tells its number of instances and how many of them are wrong.

    Args:
        stats: `statistics` frame.
        x: column whose value above `kappa` means accumulation.
        y: column whose value above `alpha` fires the trigger.
        kappa: threshold on `x`.
        alpha: threshold on `y`.
        ax: where to draw; default a new figure.
        style: to `Axes.scatter`, both outcomes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or `correct` is not boolean.
    """
    _check(stats, x, y)
    with drawing_axes(ax, (COLUMN_WIDTH, 2.8)) as axes:
        for correct, look in OUTCOMES.items():
            group = stats[stats["correct"] == correct]
            if group.empty:
                continue
            paint = {"facecolors": "none", "edgecolors": look.color} if correct else {"color": look.color}
            marks = {"s": 9, "linewidths": 0.6, "alpha": 0.7, "marker": "o" if correct else "x", **paint, **style}
            axes.scatter(group[x], group[y], label=f"{look.label} ($n$ = {len(group)})", **marks)
        if kappa is not None:
            axes.axvline(kappa, color="black", linestyle=":", linewidth=0.8)
        if alpha is not None:
            axes.axhline(alpha, color="black", linestyle=":", linewidth=0.8)
        if kappa is not None and alpha is not None:
            low, high = stats[y].min(), stats[y].max()
            slack = 1e-6 * (high - low)
            ticks = [tick for tick in axes.get_yticks() if low - slack <= tick <= high + slack]
            axes.margins(0.08, 0.2)  # room for the counts, and no ticks where nothing can be
            axes.set_yticks(ticks)
            for row in cooccurrence_table(stats, kappa, alpha, x=x, y=y).to_dict("records"):
                _note(axes, row["accumulated"], row["triggered"], row["n"], row["wrong_share"])
        axes.set_xlabel(label(x))
        axes.set_ylabel(label(y))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=1.5, handlelength=1)
    return axes


def cooccurrence_table(
    stats: pd.DataFrame, kappa: float, alpha: float, *, x: str = "peak_ratio", y: str = "late_share"
) -> pd.DataFrame:
    """The four quadrants: accumulated (`x` > `kappa`), triggered (`y` > `alpha`), n, wrong_share (NaN where n is 0)."""
    _check(stats, x, y)
    accumulated, triggered = stats[x] > kappa, stats[y] > alpha
    rows = []
    for has in (True, False):
        for fires in (True, False):
            group = stats.loc[(accumulated == has) & (triggered == fires), "correct"].to_numpy(dtype=bool)
            wrong = float((~group).mean()) if len(group) else float("nan")
            rows.append({"accumulated": has, "triggered": fires, "n": len(group), "wrong_share": wrong})
    return pd.DataFrame(rows)


def _check(stats: pd.DataFrame, x: str, y: str) -> None:
    check_frame(stats, "statistics", [x, y, "correct"])
    check_finite(stats, "statistics", [x, y])
    check_outcome(stats, "statistics")


def _note(ax: Axes, right_side: bool, upper: bool, n: int, wrong_share: float) -> None:
    """The count of one quadrant, in its outer corner."""
    ax.annotate(
        "$n$ = 0" if n == 0 else f"$n$ = {n}\n{100 * wrong_share:.0f}% wrong",
        (float(right_side), float(upper)),
        xycoords="axes fraction",
        xytext=(-2 if right_side else 2, -2 if upper else 2),
        textcoords="offset points",
        ha="right" if right_side else "left",
        va="top" if upper else "bottom",
        multialignment="right" if right_side else "left",
        fontsize=note_size(),
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )
