"""Flow between two whole segments by layer, right against wrong, with 95% bands and effect sizes (METHOD 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.evaluation.statistics import outcome_effects
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, check_outcome, matrix
from dpc_interp.plots.style import OUTCOMES, drawing_axes, note_size

COLUMNS = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]
MAX_LEVEL_NOTES = 10
"""Up to so many layers effect sizes stand level; beyond, upright."""
MAX_NOTES = 20
"""Beyond so many layers only every second, third, ... is annotated."""


def plot_layer_flow(
    frame: pd.DataFrame, *, source: str, destination: str, ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Mean flow from `source` to `destination` by layer: right solid, wrong dashed, with 95% bands over instances.

    On top of each layer stands Hedges' g of wrong over right, in bold where its 95% interval leaves zero out.

    Args:
        frame: `flow` frame joined with the column `correct` of the instances.
        source: segment name; only rows of whole segments (both steps -1) are used.
        destination: segment name.
        ax: where to draw; default a new figure.
        seed: of the bootstrap.
        style: to `Axes.plot`, both lines.

    Raises:
        DPCInterpError: a column is missing, no rows of these segments, a value not finite, or `correct` not boolean.
    """
    tables = _tables(frame, source, destination)
    effects = layer_effect_sizes(frame, source=source, destination=destination, seed=seed)
    with drawing_axes(ax) as axes:
        for correct, table in tables.items():
            look = OUTCOMES[correct]
            layers = table.columns.to_numpy()
            mean, low, high = mean_interval(matrix(table), seed=seed)
            axes.fill_between(layers, low, high, color=look.color, alpha=0.2, linewidth=0)
            line = {"color": look.color, "linestyle": look.dash, "marker": look.marker, **style}
            axes.plot(layers, mean, label=f"{look.label} ($n$ = {len(table)})", **line)
        axes.margins(x=0.08)  # the outer effect sizes clear of the axis
        top = axes.get_ylim()[1]
        axes.set_ylim(0, top * (1.35 if _upright(effects) else 1.15))  # room for the effect sizes
        _annotate(axes, effects)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"flow, {source} → {destination}")
        axes.legend(  # above the effect sizes, and right of the axis's power of ten
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=2,
            title="on top: Hedges' $g$, wrong over right",
            title_fontsize=note_size(),
        )
    return axes


def layer_effect_sizes(frame: pd.DataFrame, *, source: str, destination: str, seed: int = 0) -> pd.DataFrame:
    """Hedges' g of wrong over right by layer: layer, n_right, n_wrong, right, wrong (means), effect, low, high, p
    (Welch's t test), p_holm (Holm over the layers).

    Positive where wrong instances have more flow; the 95% interval is a seeded bootstrap; NaN where an outcome has
    fewer than two instances. Raises as `plot_layer_flow`.
    """
    tables = _tables(frame, source, destination)
    layers = pd.Index(sorted({int(layer) for table in tables.values() for layer in table.columns}), name="layer")
    right, wrong = (
        matrix(tables[correct].reindex(columns=layers)) if correct in tables else np.empty((0, len(layers)))
        for correct in (True, False)
    )
    effects = outcome_effects(wrong, right, seed)
    effects.insert(0, "layer", layers)
    return effects


def _tables(frame: pd.DataFrame, source: str, destination: str) -> dict[bool, pd.DataFrame]:
    """By outcome, the flow of each instance (rows) at each layer (columns)."""
    check_frame(frame, "flow", COLUMNS)
    check_outcome(frame, "flow")
    whole = (frame["source_step"] == -1) & (frame["step"] == -1)
    rows = frame[whole & (frame["source"] == source) & (frame["destination"] == destination)]
    if rows.empty:
        raise DPCInterpError(
            f"the flow frame has no whole segments with 'source' {source!r} and 'destination' {destination!r}"
        )
    check_finite(rows, "flow", ["value"])
    return {
        correct: by_instance(rows[rows["correct"] == correct], "layer")
        for correct in OUTCOMES
        if (rows["correct"] == correct).any()
    }


def _annotate(ax: Axes, effects: pd.DataFrame) -> None:
    """Write each layer's effect size along the top, upright and thinned out where layers are many."""
    every = -(-len(effects) // MAX_NOTES)
    for row in effects.iloc[::every].to_dict("records"):
        known = np.isfinite(row["effect"])
        ax.annotate(
            _signed(row["effect"]) if known else "–",
            (row["layer"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -1),
            textcoords="offset points",
            ha="center",
            va="top",
            rotation=90 if _upright(effects) else 0,
            fontsize=note_size(),
            fontweight="bold" if known and row["low"] * row["high"] > 0 else "normal",
        )


def _upright(effects: pd.DataFrame) -> bool:
    return len(effects) > MAX_LEVEL_NOTES


def _signed(effect: float) -> str:
    """One decimal, with a true minus sign and no negative zero."""
    return f"{round(effect, 1) + 0.0:+.1f}".replace("-", "−")
