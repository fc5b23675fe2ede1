"""What every plot asks of its frame: it has its columns, it has rows, and its outcome is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError

LABELS = {
    "late_share": "late share $R$",
    "deep_flow": "deep flow $P→R$",
    "shallow_flow": "shallow flow $P→Q$",
}
LABELS |= {"peak_ratio": "peak ratio", "nll": "mean token NLL", "length": "length (tokens)"}
LABELS |= {"answer_nll": "answer-token NLL"}


def check_frame(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Raise `DPCInterpError` unless `frame` has all `columns` and at least one row; `name` stands in the message."""
    for column in columns:
        if column not in frame.columns:
            has = ", ".join(map(str, frame.columns)) or "none"
            raise DPCInterpError(f"the {name} frame lacks the column {column!r}; it has: {has}")
    if frame.empty:
        raise DPCInterpError(
            f"the {name} frame is empty; it needs rows with the columns {', '.join(map(repr, columns))}"
        )


def check_outcome(frame: pd.DataFrame, name: str, *, both: bool = False) -> None:
    """Raise unless the column `correct` is boolean; with `both`, unless it holds right and wrong instances."""
    check_frame(frame, name, ["correct"])
    if not pd.api.types.is_bool_dtype(frame["correct"]) or frame["correct"].isna().any():
        raise DPCInterpError(f"the {name} frame's column 'correct' must hold True or False in every row")
    if both and frame["correct"].nunique() < 2:
        only = bool(frame["correct"].iloc[0])
        raise DPCInterpError(f"the {name} frame's column 'correct' holds only {only}; both outcomes are needed")


def check_finite(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Raise unless every value of `columns` is a finite number."""
    check_frame(frame, name, columns)
    for column in columns:
        bad = int((~np.isfinite(frame[column].to_numpy(dtype=float))).sum())
        if bad:
            raise DPCInterpError(f"the {name} frame's column {column!r} holds {bad} values that are not finite")


def select_layers(frame: pd.DataFrame, name: str, layers: Sequence[int] | None) -> tuple[pd.DataFrame, list[int]]:
    """The rows of `layers` and those layers; default the deep ones, the last third (at least one)."""
    known = sorted({int(layer) for layer in frame["layer"]})
    chosen = known[-max(1, len(known) // 3) :] if layers is None else sorted({int(layer) for layer in layers})
    unknown = [layer for layer in chosen if layer not in known]
    if unknown or not chosen:
        raise DPCInterpError(
            f"the {name} frame's column 'layer' lacks {unknown or 'any layer asked for'}; it has: {known}"
        )
    return frame[frame["layer"].isin(chosen)], chosen


def layer_span(layers: Sequence[int]) -> str:
    """`layer 5`, `layers 4–7` or `layers 1, 4, 6`."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]}–{layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def by_instance(frame: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Mean `value` of each instance (rows, sorted) at each value of `columns`; NaN where an instance has none."""
    return frame.pivot_table(index="instance", columns=columns, values="value", aggfunc="mean", observed=True)


def matrix(table: pd.DataFrame) -> NDArray[np.float64]:
    """A table's numbers as float64."""
    return table.to_numpy(dtype=np.float64)


def label(column: str) -> str:
    """How a column is named on an axis."""
    return LABELS.get(column, column.replace("_", " "))
