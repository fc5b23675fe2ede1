"""Does the saliency tell what matters? Knock-outs by layer, deletion and insertion curves, sanity checks (METHOD 7.3).

Lines are means over instances with 95% bands; repeated random draws of an instance are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.plots.frames import check_finite, check_frame, matrix
from dpc_interp.plots.style import BLUE, DASHES, GREY, MARKERS, PALETTE, VERMILLION, drawing_axes

DEEP = -1
"""`layer` of the rows about the deep layers at once."""
LABELS = {
    "loss_change": "change in loss (nats)",
    "answer_probability_change": "change in $p$(answer)",
    "answer_changed": "answers changed (share)",
}
LOOKS = {
    "top": ("highest saliency", VERMILLION, "-", "o"),
    "random": ("random", GREY, "--", "^"),
    "bottom": ("lowest saliency", BLUE, "-.", "s"),
}
ORDERS = {"saliency": "top", "random": "random", "reverse": "bottom"}


def plot_knockout_by_layer(
    frame: pd.DataFrame,
    *,
    value: str = "loss_change",
    absolute: bool = True,
    ax: Axes | None = None,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Effect of knocking out the edges of highest and lowest saliency, and random ones, by layer; the last: all deep.

    Args:
        frame: `knockouts` of `causal_edges`.
        value: `loss_change`, `answer_probability_change` or `answer_changed`.
        absolute: draw its size, on a logarithmic axis where anything changed: a saliency without a sign tells no more,
            and the effects span many powers of ten. A mean of exactly 0 has no point there.
        ax: where to draw; default a new figure.
        seed: of the bootstrap.
        style: to `Axes.plot`, all lines.

    Raises:
        DPCInterpError: a column is missing, no rows, or nothing finite in `value`.
    """
    if value not in LABELS:
        raise UnknownNameError("value", value, list(LABELS))
    check_frame(frame, "knockouts", ["instance", "layer", "edges", value])
    rows = frame[frame[value].notna()]
    check_finite(rows, "knockouts", [value])
    rows = rows.assign(value=rows[value].abs() if absolute else rows[value])
    layers = sorted(int(layer) for layer in rows["layer"].unique() if layer != DEEP)
    last = max(layers, default=0)
    size = absolute and value != "answer_changed"
    with drawing_axes(ax) as axes:
        if size and (rows["value"] > 0).any():
            axes.set_yscale("log")
        for edges in (name for name in LOOKS if (rows["edges"] == name).any()):
            of_edges = rows[rows["edges"] == edges]
            _line(axes, _table(of_edges[of_edges["layer"] != DEEP], "layer"), edges, seed, style)
            deep = _table(of_edges[of_edges["layer"] == DEEP].assign(layer=_beyond(last)), "layer")
            if len(deep):
                _point(axes, deep, edges, seed)
        ticks = MaxNLocator(8, integer=True).tick_values(0, last)
        shown = [int(tick) for tick in ticks if tick in layers]
        axes.set_xticks([*shown, _beyond(last)], [*map(str, shown), "deep"])
        axes.set_xlabel("layer")
        axes.set_ylabel(LABELS[value].replace("change in", "size of change in") if size else LABELS[value])
        axes.legend(title="edges knocked out")
    return axes


def plot_deletion_curves(
    frame: pd.DataFrame,
    *,
    kind: str = "deletion",
    absolute: bool = True,
    ax: Axes | None = None,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Change in loss against the share of prompt-to-late edges removed (`deletion`) or put back (`insertion`).

    Args:
        frame: `curves` of `causal_edges`.
        kind: `deletion` or `insertion`.
        absolute: draw the size of the change.
        ax, seed, style: as in `plot_knockout_by_layer`.

    Raises:
        DPCInterpError: a column is missing, no rows of this kind, or a value not finite.
    """
    check_frame(frame, "curves", ["instance", "kind", "order", "fraction", "loss_change"])
    if kind not in ("deletion", "insertion"):
        raise UnknownNameError("kind", kind, ["deletion", "insertion"])
    rows = frame[frame["kind"] == kind]
    if rows.empty:
        raise DPCInterpError(f"the curves frame has no rows of kind {kind!r}")
    check_finite(rows, "curves", ["loss_change"])
    rows = rows.assign(value=rows["loss_change"].abs() if absolute else rows["loss_change"])
    with drawing_axes(ax) as axes:
        for order in (name for name in ORDERS if (rows["order"] == name).any()):
            _line(axes, _table(rows[rows["order"] == order], "fraction"), ORDERS[order], seed, style)
        if not absolute:
            axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set_xlabel(f"share of edges {'removed' if kind == 'deletion' else 'put back'}")
        axes.set_ylabel("size of change in loss (nats)" if absolute else "change in loss (nats)")
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.legend(title=f"first {'removed' if kind == 'deletion' else 'put back'}")
    return axes


def plot_sanity(
    frame: pd.DataFrame,
    *,
    source: str = "prompt",
    layers: Sequence[int] | None = None,
    ax: Axes | None = None,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Correlation with the true saliency by number of randomised layers, a line a layer; at `answers` the other check.

    Args:
        frame: of `saliency_sanity`.
        source: `prompt` or `all`: where the compared edges come from.
        layers: whose saliency is drawn; None: the first, the middle and the last.
        ax, seed, style: as in `plot_knockout_by_layer`.

    Raises:
        DPCInterpError: a column is missing, or no rows of this source and these layers.
    """
    check_frame(frame, "sanity", ["instance", "test", "n_randomised", "layer", "source", "value"])
    known = sorted({int(layer) for layer in frame["layer"]})
    layers = sorted({known[0], known[len(known) // 2], known[-1]}) if layers is None else list(layers)
    rows = frame[(frame["source"] == source) & frame["layer"].isin(layers)]
    if rows.empty:
        raise DPCInterpError(f"the sanity frame has no rows with 'source' {source!r} and 'layer' in {layers}")
    intact = rows[rows["test"] == "weights"].drop_duplicates(["instance", "layer"])
    intact = intact.assign(n_randomised=0, value=1.0)  # the model as it is, against itself
    with drawing_axes(ax) as axes:
        looks = {
            str(layer): (
                f"layer {layer}",
                PALETTE[i % len(PALETTE)],
                DASHES[i % len(DASHES)],
                MARKERS[i % len(MARKERS)],
            )
            for i, layer in enumerate(layers)
        }
        last = int(rows["n_randomised"].max())
        for layer in layers:
            of_layer = rows[rows["layer"] == layer]
            weights = pd.concat([intact[intact["layer"] == layer], of_layer[of_layer["test"] == "weights"]])
            _line(axes, _table(weights, "n_randomised"), str(layer), seed, style, looks)
            answers = of_layer[of_layer["test"] == "answers"].assign(n_randomised=_beyond(last))
            if len(answers):
                _point(axes, _table(answers, "n_randomised"), str(layer), seed, looks)
        axes.axhline(0, color=GREY, linewidth=0.6)
        shown = [int(tick) for tick in MaxNLocator(6, integer=True).tick_values(0, last) if 0 <= tick <= last]
        axes.set_xticks([*shown, _beyond(last)], [*map(str, shown), "answers\nshuffled"])
        axes.set_xlabel("layers randomised, from the top")
        axes.set_ylabel("Spearman correlation")
        axes.legend(title="saliency of")
    return axes


def _beyond(last: int) -> float:
    """Where what belongs to no layer stands, its name clear of the last layer's."""
    return last + max(1.5, last / 6)


def _table(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    return rows.pivot_table(index="instance", columns=x, values="value", aggfunc="mean", observed=True)


def _line(
    axes: Axes,
    table: pd.DataFrame,
    name: str,
    seed: int,
    style: Mapping[str, Any],
    looks: Mapping[str, tuple[str, str, Any, str]] = LOOKS,
) -> None:
    if table.empty:
        return
    label, color, dash, marker = looks[name]
    mean, low, high = mean_interval(matrix(table), seed=seed)
    if axes.get_yscale() == "log":
        mean, high = np.where(mean > 0, mean, np.nan), np.where(mean > 0, high, np.nan)
    x = table.columns.to_numpy(dtype=float)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    line = {"color": color, "linestyle": dash, "marker": marker, **style}
    axes.plot(x, mean, label=label, **line)


def _point(
    axes: Axes,
    table: pd.DataFrame,
    name: str,
    seed: int,
    looks: Mapping[str, tuple[str, str, Any, str]] = LOOKS,
) -> None:
    _, color, _, marker = looks[name]
    mean, low, high = mean_interval(matrix(table), seed=seed)
    x = table.columns.to_numpy(dtype=float)
    axes.errorbar(x, mean, [mean - low, high - mean], color=color, marker=marker, linestyle="none", capsize=2)
