"""Where figures go: PNG and PDF with the frame each is drawn from beside them, the same bytes at every run."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dpc_interp import plots

CSV_ROWS = 2000
"""Longer frames are written as parquet."""


def save_figure(figure: Figure, stem: Path, frame: pd.DataFrame) -> None:
    """Write `stem`.png and .pdf, without dates, and `frame`; the figure is closed."""
    for kind in ("png", "pdf"):
        figure.savefig(stem.with_suffix(f".{kind}"), dpi=300, metadata=plots.STABLE_METADATA[kind])
    plt.close(figure)
    if len(frame) <= CSV_ROWS:
        frame.to_csv(stem.with_suffix(".csv"), index=False)
    else:
        frame.reset_index(drop=True).to_parquet(stem.with_suffix(".parquet"))
