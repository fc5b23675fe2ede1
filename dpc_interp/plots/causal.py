"""Causal controls of the saliency: knockouts by layer, deletion and insertion curves, sanity checks.

See docs/method.md, section 7.3. Lines are means over instances with 95% bands; repeated random draws of one instance
are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots.frames import by_instance, check_finite, check_frame, matrix
from dpc_interp.plots.intervals import draw_intervals
from dpc_interp.plots.style import BLUE, GREY, VERMILLION, SeriesStyle, drawing_axes, series_style
from dpc_interp.stats.bootstrap import mean_interval

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "loss_change": "change in loss (nats)",
        "answer_probability_change": "change in $p$(answer)",
        "answer_changed": "answers changed (share)",
    }
)
"""Column of the `knockouts` frame -> label of the y axis."""
EDGE_STYLES: Mapping[str, SeriesStyle] = MappingProxyType(
    {
        "top": SeriesStyle("highest saliency", VERMILLION, "-", "o"),
        "random": SeriesStyle("random", GREY, "--", "^"),
        "bottom": SeriesStyle("lowest saliency", BLUE, "-.", "s"),
    }
)
"""Value of the column `edges` -> how its line is drawn."""
REDUNDANCY_STYLES: Mapping[tuple[str, str], SeriesStyle] = MappingProxyType(
    {
        ("joint", "joint"): SeriesStyle("together", VERMILLION, "-", "o"),
        ("single", "single_size"): SeriesStyle("one by one, summed", BLUE, "-.", "s"),
    }
)
"""Columns of the `redundancy` frame with the effect and with its size -> how their line is drawn."""
ORDERS: Mapping[str, str] = MappingProxyType({"saliency": "top", "random": "random", "reverse": "bottom"})
"""Order of a curve -> the edges that come first in it."""
KINDS: Mapping[str, str] = MappingProxyType({"deletion": "removed", "insertion": "put back"})
"""Kind of a curve -> what happens to its edges."""


def plot_knockout_by_layer(
    frame: pd.DataFrame,
    *,
    value: str = "loss_change",
    absolute: bool = True,
    ax: Axes | None = None,
    seed: int = 0,
    **style: Any,
) -> Axes:
    """Effect of knocking out edges by layer, and in all deep layers at once as the last point.

    There is one line each for the edges of highest saliency, the edges of lowest saliency and random edges.

    Args:
        frame: `knockouts` frame of `causal_edges`.
        value: `loss_change`, `answer_probability_change` or `answer_changed`.
        absolute: draw the size of the effect, since saliency has no sign; on a logarithmic axis where any effect is
            above zero, since effects span many powers of ten. A mean of exactly 0 then has no point.
            `answer_changed` is always drawn on a linear axis.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all lines.

    Returns:
        The axes.

    Raises:
        UnknownNameError: an unknown `value`.
        DPCInterpError: a column is missing, or no row has a finite `value`.
    """
    if value not in LABELS:
        raise UnknownNameError("value", value, list(LABELS))
    check_frame(frame, "knockouts", ["instance", "layer", "edges", value])
    rows = frame[frame[value].notna()]
    check_finite(rows, "knockouts", [value])
    rows = rows.assign(value=rows[value].abs() if absolute else rows[value])
    layers = sorted(int(layer) for layer in rows["layer"].dropna().unique())
    last = max(layers, default=0)
    is_size = absolute and value != "answer_changed"
    with drawing_axes(ax) as axes:
        if is_size and (rows["value"] > 0).any():
            axes.set_yscale("log")
        for edges, series in EDGE_STYLES.items():
            of_edges = rows[rows["edges"] == edges]
            in_deep_layers = of_edges[of_edges["layer"].isna()].assign(layer=_separate_position(last))
            _draw_line(axes, by_instance(of_edges[of_edges["layer"].notna()], "layer"), series, seed, style)
            _draw_point(axes, by_instance(in_deep_layers, "layer"), series, seed)
        _name_ticks(axes, [tick for tick in _integer_ticks(8, last) if tick in layers], last, "deep")
        axes.set_xlabel("layer")
        axes.set_ylabel(LABELS[value].replace("change in", "size of change in") if is_size else LABELS[value])
        # above the axes: lines of several decades leave no free corner
        axes.legend(title="edges knocked out", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=2.0)
    return axes


def plot_redundancy(
    frame: pd.DataFrame, *, absolute: bool = True, ax: Axes | None = None, seed: int = 0, **style: Any
) -> Axes:
    """Effect of removing the top virtual tokens of a layer together, and the sum of their single effects.

    Args:
        frame: `redundancy` frame of `causal_edges`.
        absolute: draw sizes of effects, and the sum of the sizes of single effects, on a logarithmic axis where any is
            above zero.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for both lines.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, there are no rows, or a value is not finite.
    """
    check_frame(frame, "redundancy", ["instance", "layer", "joint", "single", "single_size"])
    check_finite(frame, "redundancy", ["joint", "single", "single_size"])
    with drawing_axes(ax) as axes:
        if absolute and (frame[["joint", "single_size"]] != 0).any(axis=None):
            axes.set_yscale("log")
        for (signed, size), series in REDUNDANCY_STYLES.items():
            values = frame[size].abs() if absolute else frame[signed]
            _draw_line(axes, by_instance(frame.assign(value=values), "layer"), series, seed, style)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{'size of ' if absolute else ''}{LABELS['loss_change']}")
        axes.legend(
            title="top virtual tokens removed", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.0
        )
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
    """Change in loss against the share of edges, from the prompt to the late half, that are removed or put back.

    Args:
        frame: `curves` frame of `causal_edges`.
        kind: `deletion` (edges are removed) or `insertion` (edges are put back).
        absolute: draw the size of the change.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all lines.

    Returns:
        The axes.

    Raises:
        UnknownNameError: an unknown `kind`.
        DPCInterpError: a column is missing, there are no rows of this kind, or a value is not finite.
    """
    check_frame(frame, "curves", ["instance", "kind", "order", "fraction", "loss_change"])
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, list(KINDS))
    rows = frame[frame["kind"] == kind]
    if rows.empty:
        raise DPCInterpError(f"the curves frame has no rows of kind {kind!r}")
    check_finite(rows, "curves", ["loss_change"])
    rows = rows.assign(value=rows["loss_change"].abs() if absolute else rows["loss_change"])
    with drawing_axes(ax) as axes:
        for order, edges in ORDERS.items():
            table = by_instance(rows[rows["order"] == order], "fraction")
            _draw_line(axes, table, EDGE_STYLES[edges], seed, style)
        if not absolute:
            axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set_xlabel(f"share of edges {KINDS[kind]}")
        axes.set_ylabel("size of change in loss (nats)" if absolute else "change in loss (nats)")
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.legend(title=f"first {KINDS[kind]}")
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
    """Correlation with the true saliency by number of randomised layers, one line per layer.

    The last point of each layer is the other check, shuffled answers.

    Args:
        frame: frame of `saliency_sanity`.
        source: the compared edges: `prompt` (from virtual tokens) or `all` (from every earlier position).
        layers: layers whose saliency is drawn; None: the first, the middle and the last.
        ax: where to draw; None: a new figure.
        seed: seed of the bootstrap.
        style: keywords of `Axes.plot` for all lines.

    Returns:
        The axes.

    Raises:
        DPCInterpError: a column is missing, or there are no rows of this source and these layers.
    """
    check_frame(frame, "sanity", ["instance", "test", "n_randomised", "layer", "source", "value"])
    known = sorted({int(layer) for layer in frame["layer"]})
    layers = sorted({known[0], known[len(known) // 2], known[-1]}) if layers is None else list(layers)
    rows = frame[(frame["source"] == source) & frame["layer"].isin(layers)]
    if rows.empty:
        raise DPCInterpError(f"the sanity frame has no rows with 'source' {source!r} and 'layer' in {layers}")
    last = int(rows["n_randomised"].max())
    with drawing_axes(ax) as axes:
        for i, layer in enumerate(layers):
            series = series_style(i, f"layer {layer}")
            of_layer = rows[rows["layer"] == layer]
            weights = _with_intact_model(of_layer[of_layer["test"] == "weights"])
            answers = of_layer[of_layer["test"] == "answers"].assign(n_randomised=_separate_position(last))
            _draw_line(axes, by_instance(weights, "n_randomised"), series, seed, style)
            _draw_point(axes, by_instance(answers, "n_randomised"), series, seed)
        axes.axhline(0, color=GREY, linewidth=0.6)
        _name_ticks(axes, _integer_ticks(6, last), last, "answers\nshuffled")
        axes.set_xlabel("layers randomised, from the top")
        axes.set_ylabel("Spearman correlation")
        axes.legend(title="saliency of")
    return axes


def _with_intact_model(weights: pd.DataFrame) -> pd.DataFrame:
    """Add the intact model, whose saliency correlates with itself at 1, to the rows of one layer."""
    intact = weights.drop_duplicates("instance").assign(n_randomised=0, value=1.0)
    return pd.concat([intact, weights])


def _separate_position(last: int) -> float:
    """Where a point that belongs to no layer is drawn, far enough right that its name is clear of the last layer's."""
    return last + max(1.5, last / 6)


def _integer_ticks(n: int, last: int) -> list[int]:
    """About `n` whole numbers from 0 to `last`."""
    return [int(tick) for tick in MaxNLocator(n, integer=True).tick_values(0, last) if 0 <= tick <= last]


def _name_ticks(axes: Axes, ticks: Sequence[int], last: int, separate_name: str) -> None:
    """Name the ticks by their numbers, and the separate position."""
    axes.set_xticks([*ticks, _separate_position(last)], [*map(str, ticks), separate_name])


def _draw_line(axes: Axes, table: pd.DataFrame, series: SeriesStyle, seed: int, style: Mapping[str, Any]) -> None:
    """Draw the mean over instances (rows) against the columns of `table`, with its 95% band; nothing if it is empty."""
    if table.empty:  # a kind of edges or a check that was not run, or whose values are all NaN
        return
    mean, low, high = mean_interval(matrix(table), seed=seed)
    if axes.get_yscale() == "log":
        mean, high = np.where(mean > 0, mean, np.nan), np.where(mean > 0, high, np.nan)
    x = table.columns.to_numpy(dtype=float)
    axes.fill_between(x, low, high, color=series.color, alpha=0.2, linewidth=0)
    axes.plot(x, mean, label=series.label, **{**series.line(), **style})


def _draw_point(axes: Axes, table: pd.DataFrame, series: SeriesStyle, seed: int) -> None:
    """Draw the mean over instances with its 95% interval at the single column of `table`; nothing if it is empty."""
    if table.empty:
        return
    x = table.columns.to_numpy(dtype=float)
    # Thicker than elsewhere: `elinewidth=None` is the width of the lines that the point belongs to.
    keywords: dict[str, Any] = {"color": series.color, "fmt": series.marker, "capsize": 2, "elinewidth": None}
    draw_intervals(axes, x, *mean_interval(matrix(table), seed=seed), **keywords)
