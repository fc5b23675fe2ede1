"""Triggers compared: how well each ranks both outcomes, and what corruption gains where it fires.

See docs/method.md, sections 4 and 7.2; the frame is that of `compare_triggers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import check_finite, check_frame, label, matrix
from dpc_interp.plots.intervals import draw_intervals, name_rows, separate_rows
from dpc_interp.plots.style import BLACK, COLUMN_WIDTH, GREY, drawing_axes, series_style

ROW_SPREAD = 0.3
"""Distance of the outcomes of one trigger; rows are 1 apart."""


def plot_triggers(frame: pd.DataFrame, *, ax: Axes | None = None, **style: Any) -> Axes:
    """AUROC with its 95% interval, triggers as rows (the first on top), outcomes by colour and marker.

    The vertical line is chance.

    Args:
        frame: `compare_triggers` frame of one task. The AUROC does not depend on the rate: of several rates the first
            is drawn. A trigger whose AUROC is NaN has a row without a dot.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.errorbar` for all outcomes.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, or the rows are of several tasks.
    """
    scores = ["auroc", "auroc_low", "auroc_high"]
    _check(frame, ["trigger", "outcome", *scores])
    first_rate = frame.drop_duplicates(["trigger", "outcome"])
    triggers = [str(name) for name in first_rate["trigger"].drop_duplicates()]
    outcomes = [str(name) for name in first_rate["outcome"].drop_duplicates()]
    with drawing_axes(ax, (COLUMN_WIDTH, 0.8 + 0.28 * len(triggers))) as axes:
        axes.axvline(0.5, color=GREY, linewidth=0.6, zorder=0)
        for i, outcome in enumerate(outcomes):
            rows = first_rate[(first_rate["outcome"] == outcome) & first_rate["auroc"].notna()]
            shift = ROW_SPREAD * (i - (len(outcomes) - 1) / 2)
            heights = [triggers.index(str(name)) + shift for name in rows["trigger"]]
            series = series_style(i, outcome)
            keywords = {"color": series.color, "fmt": series.marker, "label": series.label, **style}
            draw_intervals(axes, heights, *matrix(rows[scores]).T, horizontal=True, **keywords)
        separate_rows(axes, len(triggers))
        name_rows(axes, [label(name) for name in triggers])
        axes.set_xlabel("AUROC, 95% interval")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(outcomes), handlelength=1.2)
    return axes


def plot_trigger_gain(
    frame: pd.DataFrame, *, triggers: Sequence[str] | None = None, ax: Axes | None = None, **style: Any
) -> Axes:
    """Accuracy minus that of prompt tuning (percentage points) against the firing rate (%) on the test instances.

    A band shows the 95% interval of the first trigger; `random` is grey, `oracle` black. The oracle knows where PT was
    wrong, not what corruption breaks: at a rate above the share of wrong answers it also corrupts right answers, chosen
    at random.

    Args:
        frame: `compare_triggers` frame of one task and several rates.
        triggers: the triggers to draw, in this order; None: all, in the order of the frame. A trigger without a
            threshold at any rate has no curve.
        ax: where to draw; None: a new figure.
        style: keywords of `Axes.plot` for all curves.

    Returns:
        The axes.

    Raises:
        UnknownNameError: the frame has no such trigger.
        DPCInterpError: a column is missing, there are no rows, the rows are of several tasks, or there are fewer than
            two rates.
    """
    gains = ["difference", "difference_low", "difference_high"]
    _check(frame, ["trigger", "rate", "firing_rate", *gains])
    if frame["rate"].nunique() < 2:
        raise DPCInterpError("the triggers frame holds one rate; give compare_triggers several rates for curves")
    known = [str(name) for name in frame["trigger"].drop_duplicates()]
    for name in triggers or ():
        if name not in known:
            raise UnknownNameError("trigger", name, known)
    # The gain does not depend on the outcome that is ranked: one row per trigger and rate is enough.
    by_rate = frame.drop_duplicates(["trigger", "rate"]).dropna(subset=gains).sort_values("firing_rate", kind="stable")
    check_finite(by_rate, "triggers", ["firing_rate", *gains])
    with drawing_axes(ax, (COLUMN_WIDTH, 3.4)) as axes:
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        for i, name in enumerate(triggers or known):
            percent = 100 * by_rate.loc[by_rate["trigger"] == name, ["firing_rate", *gains]]
            rate, gain, low, high = (percent[column] for column in percent)
            line = _gain_line(i, name)
            if i == 0:
                axes.fill_between(rate, low, high, color=line["color"], alpha=0.15, linewidth=0)
            axes.plot(rate, gain, label=label(name), **{**line, **style})
        axes.set_xlim(0, 100)
        axes.set_xlabel("fires (%)")
        axes.set_ylabel("accuracy minus pt (points)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.2)
    return axes


def _gain_line(index: int, trigger: str) -> dict[str, Any]:
    """Colour and line style of a trigger; the two references are solid, without a colour of their own."""
    if trigger in ("random", "oracle"):
        return {"color": GREY if trigger == "random" else BLACK}
    series = series_style(index)
    return {"color": series.color, "linestyle": series.dash}


def _check(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check the columns, and that the frame is of one task."""
    check_frame(frame, "triggers", ["task", *columns])
    tasks = frame["task"].drop_duplicates()
    if len(tasks) > 1:
        raise DPCInterpError(f"the triggers frame mixes tasks ({', '.join(map(str, tasks))}); draw one at a time")
