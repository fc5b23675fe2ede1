"""Write figures and tables: the same bytes in every run and on every host.

A figure is written as PNG and PDF, the frame that it is drawn from as parquet, and a table that people read also as
CSV. Numbers are rounded to the significant digits of `round_significant`, since the last bits of a sum depend on the
processor. No frame is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dpc_interp import plots
from dpc_interp.analysis.schema import round_significant
from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.backoff import is_out_of_memory
from dpc_interp.plots.fonts import use_fallback_fonts


@dataclass(frozen=True)
class Drawing:
    """A figure of a study and the frames that it is drawn from.

    Attributes:
        name: of its files, such as `fig4_layer_flow`.
        figure: drawn, not yet written.
        caption: what it shows, one line.
        frames: name of a file -> frame, written as parquet.
        tables: name of a file -> frame that people read, written as parquet and CSV.
    """

    name: str
    figure: Figure
    caption: str
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def save(self, folder: Path) -> str:
        """Write the figure and its frames into a folder that exists, and close the figure.

        Args:
            folder: of the files.

        Returns:
            The caption after the name.
        """
        save_figure(self.figure, folder / self.name)
        for name, frame in self.frames.items():
            save_frame(frame, folder / name)
        for name, table in self.tables.items():
            save_table(table, folder / name)
        return f"{self.name}: {self.caption}"


def draw_or_explain(name: str, draw: Callable[[], Drawing], folder: Path) -> str:
    """Draw and write a figure, or say why it cannot be drawn, for example because no answer was right.

    Args:
        name: of the figure.
        draw: draws it.
        folder: of its files.

    Returns:
        The caption, or the reason, after the name.
    """
    open_before = set(plt.get_fignums())
    try:
        return draw().save(folder)
    except (DPCInterpError, RuntimeError, MemoryError) as error:
        close_new_figures(open_before)
        return f"{name}: not drawn: {why_missing(error)}."


def why_missing(error: Exception) -> str:
    """Why one part of a study is missing, in place of it. An error that hides a fault is raised again.

    Args:
        error: what its function raised.
    """
    if is_out_of_memory(error):
        return "it does not fit in memory; load the model in bfloat16 or on a larger device"
    if isinstance(error, DPCInterpError):
        return str(error)
    raise error


def close_new_figures(open_before: set[int]) -> None:
    """Close the figures that a failed drawing has left open, and none of the caller's.

    Args:
        open_before: numbers of the figures that were open before.
    """
    for number in set(plt.get_fignums()) - open_before:
        plt.close(number)


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
