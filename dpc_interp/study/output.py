"""Write figures and tables: the same bytes in every run and on every host.

A figure is written as PNG and PDF, the frame that it is drawn from as parquet, and a table that people read also as
CSV. Numbers are rounded to the significant digits of `round_significant`, since the last bits of a sum depend on the
processor. No frame is written twice.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dpc_interp import plots
from dpc_interp.analysis.schema import round_significant
from dpc_interp.plots.fonts import use_fallback_fonts


def save_figure(figure: Figure, stem: Path, frame: pd.DataFrame | None = None) -> None:
    """Write a figure as `stem`.png and `stem`.pdf and close it; the files contain no date.

    Args:
        figure: to write.
        stem: path without a suffix.
        frame: the frame that the figure is drawn from, written as `stem`.parquet; None: it is written elsewhere.
    """
    use_fallback_fonts(figure)
    for suffix in ("png", "pdf"):
        figure.savefig(stem.with_suffix(f".{suffix}"), dpi=300, metadata=plots.STABLE_METADATA[suffix])
    plt.close(figure)
    if frame is not None:
        save_frame(frame, stem)


def save_frame(frame: pd.DataFrame, stem: Path) -> None:
    """Write a frame as `stem`.parquet, rounded and without its index.

    Args:
        frame: to write.
        stem: path without a suffix.
    """
    round_significant(frame.reset_index(drop=True)).to_parquet(stem.with_suffix(".parquet"))


def save_table(frame: pd.DataFrame, stem: Path) -> None:
    """Write a frame that people read as `stem`.parquet and `stem`.csv, rounded and without its index.

    Args:
        frame: to write.
        stem: path without a suffix.
    """
    save_frame(frame, stem)
    round_significant(frame).to_csv(stem.with_suffix(".csv"), index=False)
