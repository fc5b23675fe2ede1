"""Flow between two whole segments by layer, right against wrong instances (docs/method.md, section 2).

Lines are geometric means over instances with 95% bands, because a few instances hold most of the flow; the numbers are
effect sizes: Hedges' g of the logarithm, wrong over right. With `log=False` both are of the flow itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots.frames import (
    by_instance,
    central_interval,
    check_flow,
    check_frame,
    check_outcome,
    check_positive,
    log_flow,
    matrix,
)
from dpc_interp.plots.style import OUTCOMES, drawing_axes, note_size
from dpc_interp.stats.contrast import outcome_effects
from dpc_interp.stats.paired import holm

COLUMNS = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]
MAX_HORIZONTAL_NOTES = 10
"""Largest number of layers whose effect sizes are written horizontally; more are written vertically."""
MAX_NOTES = 20
"""Largest number of effect sizes; with more layers only every second, third, ... layer has one."""


def plot_layer_flow(
    frame: pd.DataFrame,
    *,
    source: str,
    destination: str,
    log: bool = True,
    ax: Axes | None = None,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Flow from `source` to `destination` by layer: right solid, wrong dashed, with 95% bands over instances.

    Hedges' g of wrong over right is written above each layer, in bold where its 95% interval excludes zero.

    Args:
        frame: `flow` frame joined with the column `correct` of the instances.
        source: segment that the flow comes from; only rows of whole segments (both steps NA) are used.
        destination: segment that the flow goes to.
        log: draw geometric means on a logarithmic axis and compare logarithms; False: means on a linear axis. A flow of
            exactly 0 has no logarithm and is left out.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for both lines.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows of these segments, a value is not finite or negative,
            `correct` is not boolean, or every flow is 0 with `log`.
    """
    tables = _flow_by_outcome(frame, source, destination)
    effects = layer_effect_sizes(frame, source=source, destination=destination, log=log, seed=seed)
    if log:
        check_positive(tables.values(), f"from {source!r} to {destination!r}")
    with drawing_axes(ax) as axes:
        for correct, table in tables.items():
            outcome = OUTCOMES[correct]
            layers = table.columns.to_numpy()
            mean, low, high = central_interval(matrix(table), log=log, seed=seed)
            axes.fill_between(layers, low, high, color=outcome.color, alpha=0.2, linewidth=0)
            axes.plot(layers, mean, label=f"{outcome.label} ($n$ = {len(table)})", **{**outcome.line(), **style})
        axes.margins(x=0.08)  # keeps the outermost effect sizes clear of the y axis
        room = 0.35 if _is_vertical(effects) else 0.15  # for the effect sizes, of the height
        if log:
            axes.set_yscale("log")
            bottom, top = axes.get_ylim()
            axes.set_ylim(top=top * (top / bottom) ** room)
        else:
            axes.set_ylim(0, axes.get_ylim()[1] * (1 + room))
        _annotate(axes, effects)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"flow, {source} → {destination}")
        axes.legend(  # above the effect sizes, and to the right of the axis's power of ten
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=2,
            title=f"on top: Hedges' $g${' of log flow' if log else ''}, wrong over right",
            title_fontsize=note_size(),
        )
    return axes


def layer_effect_sizes(
    frame: pd.DataFrame, *, source: str, destination: str, log: bool = True, seed: int = 0
) -> pd.DataFrame:
    """Hedges' g of wrong over right instances by layer, positive where wrong instances have more flow.

    Args:
        frame, source, destination, log, seed: see `plot_layer_flow`.

    Returns:
        One row per layer: layer, n_right, n_wrong, right, wrong (geometric means; means without `log`), effect with its
        95% interval low and high (seeded bootstrap), p (Welch's t test), p_holm (Holm over the layers); with `log` the
        last five are of the logarithm, and flows of 0 do not count. NaN where an outcome has fewer than two instances.

    Raises:
        DPCInterpError: as `plot_layer_flow`.
    """
    tables = _flow_by_outcome(frame, source, destination)
    layers = pd.Index(sorted({int(layer) for table in tables.values() for layer in table.columns}), name="layer")
    right, wrong = (
        matrix(tables[correct].reindex(columns=layers)) if correct in tables else np.empty((0, len(layers)))
        for correct in (True, False)
    )
    if not log:
        effects = outcome_effects(wrong, right, seed)
    else:  # layer by layer, because each may have other flows of 0
        known = [[column[~np.isnan(column)][:, None] for column in log_flow(group).T] for group in (wrong, right)]
        by_layer = [outcome_effects(wrong, right, seed) for wrong, right in zip(*known, strict=True)]
        effects = pd.concat(by_layer, ignore_index=True)
        effects[["right", "wrong"]] = np.exp(effects[["right", "wrong"]])
        effects["p_holm"] = holm(effects["p"].to_numpy(float))
    effects.insert(0, "layer", layers)
    return effects


def _flow_by_outcome(frame: pd.DataFrame, source: str, destination: str) -> dict[bool, pd.DataFrame]:
    """By outcome, the flow of each instance (rows) at each layer (columns)."""
    check_frame(frame, "flow", COLUMNS)
    check_outcome(frame, "flow")
    is_whole = frame["source_step"].isna() & frame["step"].isna()
    rows = frame[is_whole & (frame["source"] == source) & (frame["destination"] == destination)]
    if rows.empty:
        raise DPCInterpError(
            f"the flow frame has no whole segments with 'source' {source!r} and 'destination' {destination!r}"
        )
    check_flow(rows)
    return {
        correct: by_instance(rows[rows["correct"] == correct], "layer")
        for correct in OUTCOMES
        if (rows["correct"] == correct).any()
    }


def _annotate(axes: Axes, effects: pd.DataFrame) -> None:
    """Write the effect sizes along the top, at most `MAX_NOTES` of them."""
    every = -(-len(effects) // MAX_NOTES)
    for row in effects.iloc[::every].to_dict("records"):
        is_known = np.isfinite(row["effect"])
        axes.annotate(
            _signed(row["effect"]) if is_known else "–",
            (row["layer"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -1),
            textcoords="offset points",
            ha="center",
            va="top",
            rotation=90 if _is_vertical(effects) else 0,
            fontsize=note_size(),
            fontweight="bold" if is_known and row["low"] * row["high"] > 0 else "normal",
        )


def _is_vertical(effects: pd.DataFrame) -> bool:
    return len(effects) > MAX_HORIZONTAL_NOTES


def _signed(effect: float) -> str:
    """The effect with its sign and one decimal, a true minus sign and no negative zero."""
    return f"{round(effect, 1) + 0.0:+.1f}".replace("-", "−")
