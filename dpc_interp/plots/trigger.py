"""How well a trigger statistic separates wrong from right instances: distribution, ROC and precision-recall.

See docs/method.md, section 4. A statistic is a score for "wrong": a larger value means that wrong is more likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_finite, check_frame, check_outcome, label
from dpc_interp.plots.style import COLUMN_WIDTH, GREY, OUTCOMES, drawing_axes, note_size, series_style
from dpc_interp.stats.bootstrap import ranking_interval
from dpc_interp.stats.weighted import Array, Flags


def plot_trigger_distribution(
    stats: pd.DataFrame,
    *,
    statistic: str = "late_share",
    threshold: float | None = None,
    ax: Axes | None = None,
    bins: int = 20,
    **style: Any,
) -> Axes:
    """Histogram of a statistic by outcome, in % of the instances of that outcome.

    Args:
        stats: `statistics` frame.
        statistic: column of the frame.
        threshold: drawn as a vertical line, to the right of which the trigger fires; None: no line.
        ax: where to draw; None: a new figure.
        bins: number of bins, the same for both outcomes.
        style: keywords of `Axes.stairs` for both outcomes.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, a value is not finite, or `correct` is not boolean.
    """
    _check(stats, [statistic])
    values = stats[statistic].to_numpy(dtype=np.float64)
    edges = np.histogram_bin_edges(values, bins=bins)
    with drawing_axes(ax) as axes:
        for correct, outcome in OUTCOMES.items():
            of_outcome = values[stats["correct"].to_numpy(dtype=bool) == correct]
            if not len(of_outcome):
                continue
            percent = 100 * np.histogram(of_outcome, edges)[0] / len(of_outcome)
            axes.stairs(percent, edges, fill=True, color=outcome.color, alpha=0.25, linewidth=0)
            outline = {
                "color": outcome.color,
                "linestyle": outcome.dash,
                "hatch": None if correct else "////",
                "label": f"{outcome.label} ($n$ = {len(of_outcome)})",
            }
            axes.stairs(percent, edges, **{**outline, **style})
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle=":", label=f"threshold {threshold:.3g}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label(statistic))
        axes.set_ylabel("instances (%)")
        axes.legend()
    return axes


def plot_roc(
    stats: pd.DataFrame, *, statistics: Sequence[str], ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """ROC curves of statistics as scores for "wrong"; the legend states AUROC with its 95% bootstrap interval.

    Args:
        stats: `statistics` frame.
        statistics: columns of the frame, one curve each.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all curves.

    Returns:
        The axes.

    Raises:
        DPCInterpError: `statistics` is empty, a column is missing, there are no rows, a value is not finite, or
            `correct` is not boolean or holds one outcome only.
    """
    from sklearn.metrics import roc_curve

    scores, wrong = _scores(stats, statistics)
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, label="_chance")
        for i, (name, score) in enumerate(scores.items()):
            false_positive_rate, recall, _ = roc_curve(wrong, score, drop_intermediate=False)
            value, low, high = (bound[0] for bound in ranking_interval(score, wrong, seed=seed))
            axes.plot(false_positive_rate, recall, **{**_curve(i, name, value, low, high), **style})
        axes.set(
            xlabel="share of right that fire", ylabel="share of wrong that fire", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01)
        )
        _draw_legend(axes, "AUROC [95% interval]")
    return axes


def plot_precision_recall(
    stats: pd.DataFrame, *, statistics: Sequence[str], ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Precision-recall curves of statistics as scores for "wrong"; the legend states average precision and interval.

    The grey line is the share of wrong instances, the precision of a random trigger.

    Args:
        stats: `statistics` frame.
        statistics: columns of the frame, one curve each.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.step` for all curves.

    Returns:
        The axes.

    Raises:
        DPCInterpError: as `plot_roc`.
    """
    from sklearn.metrics import precision_recall_curve

    scores, wrong = _scores(stats, statistics)
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.axhline(float(wrong.mean()), color=GREY, linewidth=0.6, label="_share wrong")
        for i, (name, score) in enumerate(scores.items()):
            precision, recall, _ = precision_recall_curve(wrong, score)
            value, low, high = (bound[1] for bound in ranking_interval(score, wrong, seed=seed))
            axes.step(recall, precision, **{"where": "post", **_curve(i, name, value, low, high), **style})
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        _draw_legend(axes, "average precision [95% interval]")
    return axes


def _draw_legend(axes: Axes, title: str) -> None:
    """Draw the legend above the axes, where it covers no curve."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), title=title, title_fontsize=note_size())


def _curve(index: int, name: str, value: float, low: float, high: float) -> dict[str, Any]:
    """Keywords of a curve: colour, line style, and a label with its value and interval."""
    series = series_style(index, f"{label(name)}: {value:.2f} [{low:.2f}, {high:.2f}]")
    return {"color": series.color, "linestyle": series.dash, "label": series.label}


def _check(stats: pd.DataFrame, statistics: Sequence[str]) -> None:
    check_frame(stats, "statistics", [*statistics, "correct"])
    check_finite(stats, "statistics", statistics)
    check_outcome(stats, "statistics")


def _scores(stats: pd.DataFrame, statistics: Sequence[str]) -> tuple[dict[str, Array], Flags]:
    """Each statistic's scores [n], and which instances are wrong [n]."""
    if not statistics:
        raise DPCInterpError("no statistics to plot; name at least one column of the statistics frame")
    _check(stats, statistics)
    check_outcome(stats, "statistics", both=True)
    return {name: stats[name].to_numpy(dtype=np.float64) for name in statistics}, ~stats["correct"].to_numpy(dtype=bool)
