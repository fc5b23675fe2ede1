"""Growth of time and memory of the analysis with length and with depth: `scaling.png`, from `analyse.csv`.

Each curve is fitted by least squares of relative errors: time as a T + b T^2 (products of weights, and attention),
memory as a + b T; with depth both as a + b L. Part of `make bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from analyse import DEPTH_POSITIONS, DESCRIPTIONS, MEASUREMENTS, VARIANTS
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from dpc_interp import plots

MODEL = "smollm2-135m"
DRAWN = ("a0", "b", "b'")
Terms = Callable[[np.ndarray], list[np.ndarray]]


def linear(x: np.ndarray) -> list[np.ndarray]:
    """Terms 1 and x."""
    return [np.ones_like(x), x]


def weights_and_attention(x: np.ndarray) -> list[np.ndarray]:
    """Terms x and x^2."""
    return [x, x**2]


def fit(x: np.ndarray, y: np.ndarray, terms: Terms) -> Callable[[np.ndarray], np.ndarray]:
    """The curve of least relative errors."""
    factors, *_ = np.linalg.lstsq(np.stack(terms(x), axis=1) / y[:, None], np.ones_like(y), rcond=None)
    return lambda at: np.stack(terms(at), axis=1) @ factors


def draw(ax: Axes, frame: pd.DataFrame, over: str, value: str, scale: float, terms: Terms) -> None:
    """Points of each variant and their fitted curve."""
    for i, variant in enumerate(VARIANTS):
        rows = frame[frame["variant"] == variant].sort_values(over)
        if variant not in DRAWN or len(rows) < 2:
            continue
        x, y = rows[over].to_numpy(float), rows[value].to_numpy(float) * scale
        ax.plot(x, y, "o", markersize=3, color=f"C{i}", label=f"({variant}) {DESCRIPTIONS[variant]}")
        at = np.geomspace(x[0], x[-1], 60)
        ax.plot(at, fit(x, y, terms)(at), linewidth=0.8, color=f"C{i}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ticks = sorted(frame[over].unique())
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def main() -> None:
    """Draw benchmarks/scaling.png."""
    rows = pd.read_csv(MEASUREMENTS).query("model == @MODEL")
    depth = rows["layers"].max()
    by_length, by_depth = rows[rows["layers"] == depth], rows[rows["positions"] == DEPTH_POSITIONS]
    with plots.style_context():
        fig, axes = plt.subplots(2, 2, figsize=(6.9, 4.6), layout="constrained")
        for row, (value, scale, label) in enumerate((("seconds", 1.0, "time (s)"), ("peak", 1e-9, "peak memory (GB)"))):
            draw(axes[row, 0], by_length, "positions", value, scale, (weights_and_attention, linear)[row])
            draw(axes[row, 1], by_depth, "layers", value, scale, linear)
            axes[row, 0].set_ylabel(label)
        axes[1, 0].set_xlabel(f"positions, {depth} layers")
        axes[1, 1].set_xlabel(f"layers, {DEPTH_POSITIONS} positions")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=2)
        fig.savefig(Path(__file__).parent / "scaling.png", dpi=200)


if __name__ == "__main__":
    main()
