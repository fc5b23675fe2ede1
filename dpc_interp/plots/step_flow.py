"""Flow into each step of the rationale from prompt, question and earlier steps (docs/method.md, section 2).

Lines are geometric means over right (solid) and over wrong (dashed) instances with 95% bands; with `log=False`, means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import (
    by_instance,
    central_interval,
    check_flow,
    check_frame,
    check_outcome,
    check_positive,
    layer_span,
    matrix,
    select_layers,
)
from dpc_interp.plots.style import GREEN, GREY, ORANGE, OUTCOMES, PURPLE, SeriesStyle, drawing_axes

COLUMNS = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]
SOURCE_STYLES: Mapping[str, SeriesStyle] = MappingProxyType(
    {
        "prompt": SeriesStyle("prompt", PURPLE, "-", "o"),
        "question": SeriesStyle("question", GREEN, "-", "^"),
        "rationale": SeriesStyle("earlier steps", ORANGE, "-", "D"),
    }
)
"""Source -> its name in the legend, colour and marker. The dash shows the outcome."""
MIN_INSTANCES = 5
"""Smallest number of instances of an outcome whose mean is drawn at a step."""


def plot_step_flow(
    frame: pd.DataFrame,
    *,
    ax: Axes | None = None,
    layers: Sequence[int] | None = None,
    sources: Sequence[str] = tuple(SOURCE_STYLES),
    min_instances: int | None = None,
    log: bool = True,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Flow into each step from each source: right solid, wrong dashed, with 95% bands over instances.

    The flow from earlier steps into step k is the mean over steps m < k; flow within a step is left out. Steps are
    counted from 1 on the axis.

    Args:
        frame: `flow` frame joined with the column `correct` of the instances.
        ax: where to draw; None: a new figure.
        layers: the layers to average over; None: the last third.
        sources: any of `prompt`, `question` and `rationale` (earlier steps).
        min_instances: smallest number of instances of an outcome whose mean is drawn at a step; None: 5, or all
            instances of a smaller frame, so that one instance is drawn as it is, without a band.
        log: draw geometric means on a logarithmic axis, since the sources differ in scale and a few instances hold
            most of the flow; False: means on a linear axis. A flow of exactly 0 has no logarithm and is left out.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all lines.

    Returns:
        The axes.

    Raises:
        UnknownNameError: an unknown source.
        DPCInterpError: a column is missing, too few instances reach any step, a value is not finite or
            negative, the frame lacks one of the layers, or every flow is 0 with `log`.
    """
    check_frame(frame, "flow", COLUMNS)
    check_outcome(frame, "flow")
    for source in sources:
        if source not in SOURCE_STYLES:
            raise UnknownNameError("source", source, list(SOURCE_STYLES))
    chosen, layers = select_layers(frame, "flow", layers)
    if min_instances is None:
        min_instances = min(MIN_INSTANCES, frame["instance"].nunique())
    rows = _rows_into_steps(chosen)
    tables = {
        (source, correct): _flow_by_step(rows[(rows["source"] == source) & (rows["correct"] == correct)], min_instances)
        for source in sources
        for correct in OUTCOMES
    }
    if all(table.empty for table in tables.values()):
        raise DPCInterpError(f"no 'step' of the flow frame is reached by {min_instances} instances of one outcome")
    if log:
        check_positive(tables.values(), "into steps")

    with drawing_axes(ax) as axes:
        for (source, correct), table in tables.items():
            if table.empty:
                continue
            outcome, series = OUTCOMES[correct], SOURCE_STYLES[source]
            steps = table.columns.to_numpy(dtype=np.int64) + 1
            mean, low, high = central_interval(matrix(table), log=log, seed=seed)
            axes.fill_between(steps, low, high, color=series.color, alpha=0.2, linewidth=0)
            line = {**series.line(), "linestyle": outcome.dash, **style}
            axes.plot(steps, mean, label=f"{source}, {outcome.label}", **line)
        if log:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(f"flow into step, {layer_span(layers)}")
        _draw_legend(axes, sources)
    return axes


def _rows_into_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of flow into single rationale steps, from whole prompt and question or from strictly earlier steps."""
    rows = frame[(frame["destination"] == "rationale") & frame["step"].notna()]
    is_earlier_step = (rows["source_step"] < rows["step"]).fillna(False)  # NA: the source is a whole segment
    rows = rows[(rows["source"] != "rationale") | is_earlier_step]
    if rows.empty:
        raise DPCInterpError("the flow frame has no rows of single steps; 'step' is missing in all of them")
    check_flow(rows)
    return rows


def _flow_by_step(rows: pd.DataFrame, min_instances: int) -> pd.DataFrame:
    """Flow of each instance (rows) into each step (columns) that enough instances reach."""
    table = by_instance(rows, "step")
    return table.loc[:, table.notna().sum() >= min_instances]


def _draw_legend(axes: Axes, sources: Sequence[str]) -> None:
    """Draw the legend above the axes: sources by colour and marker, outcomes by dash."""
    of_sources = [SOURCE_STYLES[source] for source in sources]
    handles = [Line2D([], [], label=series.label, **series.line()) for series in of_sources]
    handles += [
        Line2D([], [], color=GREY, linestyle=outcome.dash, label=outcome.label) for outcome in OUTCOMES.values()
    ]
    bottom = 1.0 if axes.get_yscale() == "log" else 1.07  # above the power of ten of a linear axis
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=3)
