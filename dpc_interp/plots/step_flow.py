"""Flow into each step of the rationale, from prompt, question and earlier steps, right against wrong (METHOD 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.plots.frames import (
    by_instance,
    check_finite,
    check_frame,
    check_outcome,
    layer_span,
    matrix,
    select_layers,
)
from dpc_interp.plots.style import GREEN, GREY, ORANGE, OUTCOMES, PURPLE, drawing_axes

COLUMNS = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]
LOOKS = {
    "prompt": ("prompt", PURPLE, "o"),
    "question": ("question", GREEN, "^"),
    "rationale": ("earlier steps", ORANGE, "D"),
}
"""By source: its name in the legend, colour and marker."""


def plot_step_flow(
    frame: pd.DataFrame,
    *,
    ax: Axes | None = None,
    layers: Sequence[int] | None = None,
    sources: Sequence[str] = ("prompt", "question", "rationale"),
    min_instances: int = 5,
    log: bool = True,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Mean flow into each step from each source: right solid, wrong dashed, with 95% bands over instances.

    From earlier steps is the mean over steps m < k of the flow into step k; flow within a step is left out.

    Args:
        frame: `flow` frame joined with the column `correct` of the instances.
        ax: where to draw; default a new figure.
        layers: averaged over these; default the last third.
        sources: any of prompt, question, rationale.
        min_instances: a step reached by fewer instances of an outcome is not drawn for it.
        log: logarithmic flow axis, as the sources differ in scale.
        seed: of the bootstrap.
        style: to `Axes.plot`, all lines.

    Raises:
        DPCInterpError: a column is missing, no step has enough rows, a value is not finite, no such layer or source.
    """
    check_frame(frame, "flow", COLUMNS)
    check_outcome(frame, "flow")
    for source in sources:
        if source not in LOOKS:
            raise UnknownNameError("source", source, list(LOOKS))
    chosen, layers = select_layers(frame, "flow", layers)
    rows = chosen[
        (chosen["destination"] == "rationale") & (chosen["step"] >= 0) & (chosen["source_step"] < chosen["step"])
    ]
    rows = rows[(rows["source"] != "rationale") | (rows["source_step"] >= 0)]
    if rows.empty:
        raise DPCInterpError("the flow frame has no rows with 'step' from 0 on; only whole segments")
    check_finite(rows, "flow", ["value"])
    lines = {
        (source, correct): _steps(rows[(rows["source"] == source) & (rows["correct"] == correct)], min_instances)
        for source in sources
        for correct in OUTCOMES
    }
    if all(table.empty for table in lines.values()):
        raise DPCInterpError(f"no 'step' of the flow frame is reached by {min_instances} instances of one outcome")

    with drawing_axes(ax) as axes:
        for (source, correct), table in lines.items():
            if table.empty:
                continue
            _, color, marker = LOOKS[source]
            steps = table.columns.to_numpy() + 1
            mean, low, high = mean_interval(matrix(table), seed=seed)
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
            line = {"color": color, "linestyle": OUTCOMES[correct].dash, "marker": marker, **style}
            axes.plot(steps, mean, label=f"{source}, {OUTCOMES[correct].label}", **line)
        if log:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(f"flow into step, {layer_span(layers)}")
        _legend(axes, sources)
    return axes


def _steps(rows: pd.DataFrame, min_instances: int) -> pd.DataFrame:
    """Flow of each instance (rows) into each step (columns) that enough instances reach."""
    table = by_instance(rows, "step")
    return table.loc[:, table.notna().sum() >= min_instances]


def _legend(ax: Axes, sources: Sequence[str]) -> None:
    """Above the axes, sources by colour and marker; outcomes by dash."""
    looks = [LOOKS[source] for source in sources]
    handles = [Line2D([], [], color=color, marker=marker, label=name) for name, color, marker in looks]
    handles += [Line2D([], [], color=GREY, linestyle=look.dash, label=look.label) for look in OUTCOMES.values()]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
