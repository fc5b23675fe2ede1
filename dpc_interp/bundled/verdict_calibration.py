"""Simulate the rule of the gains: `python -m dpc_interp.bundled.verdict_calibration --out figures`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from cyclopts import run

from dpc_interp import plots
from dpc_interp.claims.simulation import simulate_verdicts
from dpc_interp.study.output import save_figure, save_table


def draw_calibration(out: Path, n: int) -> None:
    """Write `verdict_calibration`, the figure and its table.

    Args:
        out: folder of the files; it exists.
        n: experiments of each kind.
    """
    frame = simulate_verdicts(n=n)
    with plots.style_context():
        figure, panels = plt.subplots(1, 2, figsize=(2 * plots.COLUMN_WIDTH, 2.4), layout="constrained")
        for ax, truth in zip(panels, ("no effect", "paper's effect"), strict=True):
            plots.plot_verdict_calibration(frame, truth=truth, ax=ax)
        save_figure(figure, out / "verdict_calibration")
    save_table(frame, out / "verdict_calibration")


def main(*, out: Path = Path("figures"), n: int = 2000) -> None:
    """Simulate verdicts where there is no effect and under the paper's.

    Args:
        out: folder of the figure and its table.
        n: experiments of each kind.
    """
    draw_calibration(out, n)


if __name__ == "__main__":
    run(main)
