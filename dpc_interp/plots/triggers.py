"""Triggers side by side: how well each ranks both outcomes, and what corruption gains where it fires (METHOD 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import check_finite, check_frame, label
from dpc_interp.plots.style import BLACK, COLUMN_WIDTH, DASHES, GREY, MARKERS, PALETTE, drawing_axes

SPREAD = 0.3
"""Height, of 1 a trigger, between its outcomes."""


def plot_triggers(frame: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """AUROC with its 95% interval, triggers (rows, first on top) by outcomes (colour and marker); the line is chance.

    Args:
        frame: `compare_triggers` frame of one task; of several rates, which do not change the AUROC, the first is
            drawn. A trigger whose AUROC is NaN keeps its row, without a dot.
        ax: where to draw; default a new figure.
        style: to `Axes.errorbar`, all outcomes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, or several tasks are mixed.
    """
    scores = ["auroc", "auroc_low", "auroc_high"]
    _check(frame, ["trigger", "outcome", *scores])
    drawn = frame.drop_duplicates(["trigger", "outcome"])
    triggers = [str(name) for name in drawn["trigger"].drop_duplicates()]
    outcomes = [str(name) for name in drawn["outcome"].drop_duplicates()]
    with drawing_axes(ax, (COLUMN_WIDTH, 0.8 + 0.28 * len(triggers))) as axes:
        axes.axvline(0.5, color=GREY, linewidth=0.6, zorder=0)
        for i, outcome in enumerate(outcomes):
            rows = drawn[(drawn["outcome"] == outcome) & drawn["auroc"].notna()]
            middle, low, high = rows[scores].to_numpy(dtype=np.float64).T
            shift = SPREAD * (i - (len(outcomes) - 1) / 2)
            heights = [triggers.index(str(name)) + shift for name in rows["trigger"]]
            marks = {"color": PALETTE[i % len(PALETTE)], "fmt": MARKERS[i % len(MARKERS)], "elinewidth": 0.8}
            spans = np.maximum([middle - low, high - middle], 0.0)
            axes.errorbar(middle, heights, xerr=spans, label=outcome, **{**marks, **style})
        for edge in range(1, len(triggers)):
            axes.axhline(edge - 0.5, color="0.9", linewidth=0.5, zorder=0)
        axes.set_yticks(range(len(triggers)), [label(name) for name in triggers])
        axes.set_ylim(len(triggers) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("AUROC, 95% interval")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(outcomes), handlelength=1.2)
    return axes


def plot_trigger_gain(
    frame: pd.DataFrame, *, triggers: Sequence[str] | None = None, ax: Axes | None = None, **style: Any
) -> Axes:
    """Accuracy minus that of prompt tuning (points) against the firing rate (%) on the reported instances.

    The first trigger's 95% interval is a band; `random` is grey, `oracle` black. The oracle knows where PT was wrong,
    not what corruption breaks: fired more often than that, it takes right answers at random.

    Args:
        frame: `compare_triggers` frame of one task and several rates.
        triggers: which, in this order; None: all in the frame's order. One that never fires by a threshold is left out.
        ax: where to draw; default a new figure.
        style: to `Axes.plot`, all curves.

    Raises:
        DPCInterpError: a column is missing, there are no rows, several tasks are mixed, there are fewer than two rates,
            or a trigger is not in the frame.
    """
    gains = ["difference", "difference_low", "difference_high"]
    _check(frame, ["trigger", "rate", "firing_rate", *gains])
    if frame["rate"].nunique() < 2:
        raise DPCInterpError("the triggers frame holds one rate; give compare_triggers several rates for curves")
    known = [str(name) for name in frame["trigger"].drop_duplicates()]
    for name in triggers or ():
        if name not in known:
            raise UnknownNameError("trigger", name, known)
    of_all = frame.drop_duplicates(["trigger", "rate"]).dropna(subset=gains).sort_values("firing_rate", kind="stable")
    check_finite(of_all, "triggers", ["firing_rate", *gains])
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        for i, name in enumerate(triggers or known):
            rows = 100 * of_all.loc[of_all["trigger"] == name, ["firing_rate", *gains]]
            look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)]}
            if name in ("random", "oracle"):
                look = {"color": GREY if name == "random" else BLACK}
            if i == 0:
                axes.fill_between(
                    rows["firing_rate"],
                    rows["difference_low"],
                    rows["difference_high"],
                    color=look["color"],
                    alpha=0.15,
                    linewidth=0,
                )
            axes.plot(rows["firing_rate"], rows["difference"], label=label(name), **{**look, **style})
        axes.set_xlim(0, 100)
        axes.set_xlabel("fires (%)")
        axes.set_ylabel("accuracy minus pt (points)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.2)
    return axes


def _check(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    check_frame(frame, "triggers", ["task", *columns])
    tasks = frame["task"].drop_duplicates()
    if len(tasks) > 1:
        raise DPCInterpError(f"the triggers frame mixes tasks ({', '.join(map(str, tasks))}); draw one at a time")
