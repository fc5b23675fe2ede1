"""How often verdicts on gains err, and what they find, by share of changed answers and number of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import check_frame
from dpc_interp.plots.style import BLUE, GREEN, VERMILLION, drawing_axes

NOMINAL = 0.025
"""The largest share of "holds", and of "fails", that the rule allows where there is no effect."""
COLORS = (VERMILLION, BLUE, GREEN)
MARKERS = ("o", "s", "^")


def plot_verdict_calibration(
    frame: pd.DataFrame, *, truth: str = "no effect", ax: Axes | None = None, **style: Any
) -> Axes:
    """Share of simulated experiments that are called `holds` and `fails`.

    There is one line a number of prompts and verdict, `fails` dashed; of the worlds that differ in how far prompts
    change the same problems, the one with most verdicts is shown.

    Args:
        frame: frame of `claims.simulation.simulate_verdicts`.
        truth: `no effect` or `paper's effect`.
        ax: axes to draw on; None: the current ones.
        style: keyword arguments of `Axes.plot`.

    Returns:
        The axes.

    Raises:
        DPCInterpError: the frame lacks a column, or has no such truth.

    Example:
        >>> from dpc_interp import plots
        >>> from dpc_interp.claims.simulation import simulate_verdicts
        >>> plots.plot_verdict_calibration(simulate_verdicts([0.01, 0.1], [3], n=2)).get_ylabel()
        'experiments (%)'
    """
    check_frame(frame, "verdict calibration", ["truth", "changed", "n_prompts", "holds", "fails"])
    rows = frame[frame["truth"] == truth]
    if rows.empty:
        raise DPCInterpError(f"the frame has no rows of {truth!r}; give one of {sorted(set(frame['truth']))}")
    worst = rows.groupby(["n_prompts", "changed"])[["holds", "fails"]].max()
    with drawing_axes(ax) as axes:
        for k, n_prompts in enumerate(worst.index.unique("n_prompts")):
            line = worst.loc[n_prompts]
            for verdict, dash in (("holds", "-"), ("fails", "--")):
                look: dict[str, Any] = {"color": COLORS[k % 3], "marker": MARKERS[k % 3], "linestyle": dash}
                x, y = 100 * np.asarray(line.index), 100 * line[verdict].to_numpy(float)
                axes.plot(x, y, label=f"{n_prompts} prompts, {verdict}", **look | style)
        if truth == "no effect":
            axes.axhline(100 * NOMINAL, color="black", linewidth=0.6, linestyle=":")
            axes.legend(loc="upper left")
        axes.set(xscale="log", xlabel="changed answers (%)", ylabel="experiments (%)", title=truth)
        axes.set_ylim(0, 2 * axes.get_ylim()[1] if truth == "no effect" else 100)  # room for the legend
        percent = 100 * np.sort(worst.index.unique("changed").to_numpy(float))
        axes.set_xticks(percent, [f"{tick:g}" for tick in percent])
        axes.set_xticks([], minor=True)
    return axes
