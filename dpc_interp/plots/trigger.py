"""How well a trigger statistic tells wrong instances from right: its distribution, ROC and precision-recall (METHOD 4).

A statistic is a score for "wrong": larger means more likely wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve, roc_curve

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.effects import Array
from dpc_interp.evaluation.intervals import ranking_interval
from dpc_interp.plots.frames import check_finite, check_frame, check_outcome, label
from dpc_interp.plots.style import COLUMN_WIDTH, DASHES, GREY, OUTCOMES, PALETTE, drawing_axes, note_size


def plot_trigger_distribution(
    stats: pd.DataFrame,
    *,
    statistic: str = "late_share",
    threshold: float | None = None,
    ax: Axes | None = None,
    bins: int = 20,
    **style: Any,
) -> Axes:
    """Histogram of `statistic` by outcome, in % of that outcome's instances; the trigger fires right of `threshold`.

    `stats` is the `statistics` frame; `style` goes to `Axes.stairs`, both outcomes. Raises `DPCInterpError` where a
    column is missing, there are no rows, a value is not finite, or `correct` is not boolean.
    """
    _check(stats, [statistic])
    values = stats[statistic].to_numpy(dtype=np.float64)
    edges = np.histogram_bin_edges(values, bins=bins)
    with drawing_axes(ax) as axes:
        for correct, look in OUTCOMES.items():
            group = values[stats["correct"].to_numpy(dtype=bool) == correct]
            if not len(group):
                continue
            share = 100 * np.histogram(group, edges)[0] / len(group)
            name = f"{look.label} ($n$ = {len(group)})"
            hatch = None if correct else "////"
            axes.stairs(share, edges, fill=True, color=look.color, alpha=0.25, linewidth=0)
            axes.stairs(
                share, edges, **{"color": look.color, "linestyle": look.dash, "hatch": hatch, "label": name, **style}
            )
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
    """ROC curves of `statistics` against "wrong", AUROC with its 95% bootstrap interval in the legend.

    `style` goes to `Axes.plot`, all curves. Raises as `plot_trigger_distribution`, and where an outcome is missing.
    """
    scores, wrong = _scores(stats, statistics)
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, label="_chance")
        for i, (name, score) in enumerate(scores.items()):
            fall_out, recall, _ = roc_curve(wrong, score, drop_intermediate=False)
            value, low, high = (bound[0] for bound in ranking_interval(score, wrong, seed=seed))
            axes.plot(
                fall_out, recall, label=f"{label(name)}: {value:.2f} [{low:.2f}, {high:.2f}]", **{**_look(i), **style}
            )
        axes.set(
            xlabel="share of right that fire", ylabel="share of wrong that fire", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01)
        )
        _legend_above(axes, "AUROC [95% interval]")
    return axes


def plot_precision_recall(
    stats: pd.DataFrame, *, statistics: Sequence[str], ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Precision-recall curves of `statistics` against "wrong", average precision with its 95% interval in the legend.

    The grey line is the share of wrong instances. `style` goes to `Axes.step`, all curves. Raises as `plot_roc`.
    """
    scores, wrong = _scores(stats, statistics)
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.axhline(float(wrong.mean()), color=GREY, linewidth=0.6, label="_share wrong")
        for i, (name, score) in enumerate(scores.items()):
            precision, recall, _ = precision_recall_curve(wrong, score)
            value, low, high = (bound[1] for bound in ranking_interval(score, wrong, seed=seed))
            text = f"{label(name)}: {value:.2f} [{low:.2f}, {high:.2f}]"
            axes.step(recall, precision, label=text, **{"where": "post", **_look(i), **style})
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        _legend_above(axes, "average precision [95% interval]")
    return axes


def _legend_above(ax: Axes, title: str) -> None:
    """Above the axes, where it hides no curve."""
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), title=title, title_fontsize=note_size())


def _look(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)]}


def _check(stats: pd.DataFrame, statistics: Sequence[str]) -> None:
    check_frame(stats, "statistics", [*statistics, "correct"])
    check_finite(stats, "statistics", statistics)
    check_outcome(stats, "statistics")


def _scores(
    stats: pd.DataFrame, statistics: Sequence[str]
) -> tuple[dict[str, Array], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Each statistic's scores [n] and which instances are wrong [n]."""
    if not statistics:
        raise DPCInterpError("no statistics to plot; name at least one column of the statistics frame")
    _check(stats, statistics)
    check_outcome(stats, "statistics", both=True)
    return {name: stats[name].to_numpy(dtype=np.float64) for name in statistics}, ~stats["correct"].to_numpy(dtype=bool)
