"""Whether accumulation and late flow occur together, and whether such instances are wrong.

Claim C3 (docs/method.md, section 1): accumulation, here a statistic above kappa, and late flow, above alpha, occur on
the same instances.
"""

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
    """Scatter plot of two statistics, one mark per instance, by outcome; the thresholds are lines.

    With both thresholds, the corner of each quadrant states its number of instances and the share that is wrong.

    Args:
        stats: `statistics` frame.
        x: column that means accumulation where it is above `kappa`.
        y: column that fires the trigger where it is above `alpha`.
        kappa: threshold on `x`; None: no line.
        alpha: threshold on `y`; None: no line.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.scatter` for both outcomes.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or `correct` is not boolean.
    """
    _check(stats, x, y)
    with drawing_axes(ax, (COLUMN_WIDTH, 2.8)) as axes:
        for correct, outcome in OUTCOMES.items():
            rows = stats[stats["correct"] == correct]
            if rows.empty:
                continue
            paint = {"facecolors": "none", "edgecolors": outcome.color} if correct else {"color": outcome.color}
            marks = {"s": 9, "linewidths": 0.6, "alpha": 0.7, "marker": "o" if correct else "x", **paint, **style}
            axes.scatter(rows[x], rows[y], label=f"{outcome.label} ($n$ = {len(rows)})", **marks)
        if kappa is not None:
            axes.axvline(kappa, color="black", linestyle=":", linewidth=0.8)
        if alpha is not None:
            axes.axhline(alpha, color="black", linestyle=":", linewidth=0.8)
        if kappa is not None and alpha is not None:
            _annotate_quadrants(axes, cooccurrence_table(stats, kappa, alpha, x=x, y=y), stats[y])
        axes.set_xlabel(label(x))
        axes.set_ylabel(label(y))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=1.5, handlelength=1)
    return axes


def cooccurrence_table(
    stats: pd.DataFrame, kappa: float, alpha: float, *, x: str = "peak_ratio", y: str = "late_share"
) -> pd.DataFrame:
    """Number of instances, and the share that is wrong, in each of the four quadrants.

    Args:
        stats: `statistics` frame.
        kappa: threshold on `x`; an instance accumulated where it is strictly above.
        alpha: threshold on `y`; the trigger fires where it is strictly above.
        x: column of the accumulation.
        y: column of the trigger.

    Returns:
        One row a quadrant: accumulated, triggered, n, wrong_share (NaN where n is 0).

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or `correct` is not boolean.

    Example:
        >>> import pandas as pd
        >>> from dpc_interp import plots
        >>> columns = {"peak_ratio": [1, 5, 5], "late_share": [0.1, 0.9, 0.8], "correct": [True, False, True]}
        >>> plots.cooccurrence_table(pd.DataFrame(columns), kappa=2, alpha=0.5)["n"].tolist()
        [2, 0, 0, 1]
    """
    _check(stats, x, y)
    accumulated, triggered = stats[x] > kappa, stats[y] > alpha
    rows = []
    for is_accumulated in (True, False):
        for is_triggered in (True, False):
            quadrant = (accumulated == is_accumulated) & (triggered == is_triggered)
            correct = stats.loc[quadrant, "correct"].to_numpy(dtype=bool)
            wrong_share = float((~correct).mean()) if len(correct) else float("nan")
            rows.append(
                {
                    "accumulated": is_accumulated,
                    "triggered": is_triggered,
                    "n": len(correct),
                    "wrong_share": wrong_share,
                }
            )
    return pd.DataFrame(rows)


def _check(stats: pd.DataFrame, x: str, y: str) -> None:
    check_frame(stats, "statistics", [x, y, "correct"])
    check_finite(stats, "statistics", [x, y])
    check_outcome(stats, "statistics")


def _annotate_quadrants(axes: Axes, table: pd.DataFrame, y_values: pd.Series) -> None:
    """Write the counts of each quadrant into its corner, in margins without ticks: `y` may be a share."""
    low, high = y_values.min(), y_values.max()
    slack = 1e-6 * (high - low)
    ticks = [tick for tick in axes.get_yticks() if low - slack <= tick <= high + slack]
    axes.margins(0.08, 0.2)
    axes.set_yticks(ticks)
    for row in table.to_dict("records"):
        _annotate_quadrant(axes, row["accumulated"], row["triggered"], row["n"], row["wrong_share"])


def _annotate_quadrant(axes: Axes, is_right: bool, is_upper: bool, n: int, wrong_share: float) -> None:
    """Write the counts of one quadrant into its outer corner."""
    axes.annotate(
        "$n$ = 0" if n == 0 else f"$n$ = {n}\n{100 * wrong_share:.0f}% wrong",
        (float(is_right), float(is_upper)),
        xycoords="axes fraction",
        xytext=(-2 if is_right else 2, -2 if is_upper else 2),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top" if is_upper else "bottom",
        multialignment="right" if is_right else "left",
        fontsize=note_size(),
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )
