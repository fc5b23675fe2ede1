"""Checks and selections that the plots share: required columns, finite values, outcomes, layers and axis labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpc_interp.analysis.layers import deep_layers, layer_range
from dpc_interp.errors import DPCInterpError
from dpc_interp.stats.bootstrap import mean_interval

LABELS: Mapping[str, str] = {
    "late_share": "late share $R$",
    "deep_flow": "deep flow $P→R$",
    "row_share": "row share $P→R$",
    "shallow_flow": "shallow flow $P→Q$",
    "peak_ratio": "peak ratio",
    "nll": "mean token NLL",
    "length": "length (tokens)",
    "answer_nll": "answer-token NLL",
}
"""Column -> its label on an axis. `label` derives the label of any other column from its name."""


def check_frame(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Check that a frame has the required columns and at least one row.

    Args:
        frame: the frame that is plotted.
        name: what the error message calls it.
        columns: the required columns.

    Raises:
        DPCInterpError: a column is missing, or there are no rows.
    """
    for column in columns:
        if column not in frame.columns:
            present = ", ".join(map(str, frame.columns)) or "none"
            hint = "; merge it from Analysis.instances" if column == "correct" else ""
            raise DPCInterpError(f"the {name} frame lacks the column {column!r}; it has: {present}{hint}")
    if frame.empty:
        raise DPCInterpError(
            f"the {name} frame is empty; it needs rows with the columns {', '.join(map(repr, columns))}"
        )


def check_outcome(frame: pd.DataFrame, name: str, *, both: bool = False) -> None:
    """Check that the column `correct` is boolean.

    Args:
        frame: the frame that is plotted.
        name: what the error message calls it.
        both: also require at least one right and one wrong instance.

    Raises:
        DPCInterpError: `correct` is missing, is not boolean, or holds one outcome only where both are required.
    """
    check_frame(frame, name, ["correct"])
    if not pd.api.types.is_bool_dtype(frame["correct"]) or frame["correct"].isna().any():
        raise DPCInterpError(f"the {name} frame's column 'correct' must hold True or False in every row")
    if both and frame["correct"].nunique() < 2:
        only = bool(frame["correct"].iloc[0])
        raise DPCInterpError(f"the {name} frame's column 'correct' holds only {only}; both outcomes are needed")


def check_finite(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Check that columns hold finite numbers only.

    Args:
        frame: the frame that is plotted.
        name: what the error message calls it.
        columns: the columns to check.

    Raises:
        DPCInterpError: a column is missing, there are no rows, or a value is not finite.
    """
    check_frame(frame, name, columns)
    for column in columns:
        n_bad = int((~np.isfinite(frame[column].to_numpy(dtype=float))).sum())
        if n_bad:
            raise DPCInterpError(f"the {name} frame's column {column!r} holds {n_bad} values that are not finite")


def check_flow(frame: pd.DataFrame) -> None:
    """Check that the column `value` of a flow frame holds finite numbers of at least 0.

    Args:
        frame: the frame that is plotted.

    Raises:
        DPCInterpError: it is missing, there are no rows, or a value is not finite or below 0.
    """
    check_finite(frame, "flow", ["value"])
    if n_negative := int((frame["value"] < 0).sum()):
        raise DPCInterpError(f"the flow frame's column 'value' holds {n_negative} values below 0; flow has no sign")


def check_positive(tables: Iterable[pd.DataFrame], flow: str) -> None:
    """Check that a logarithmic axis can show some of the flow.

    Args:
        tables: tables of flow.
        flow: what the error message calls it.

    Raises:
        DPCInterpError: every value is 0 or missing.
    """
    if not any((table > 0).any(axis=None) for table in tables):
        raise DPCInterpError(f"all flow {flow} is 0, which a logarithmic axis cannot show; pass log=False")


def select_layers(frame: pd.DataFrame, name: str, layers: Sequence[int] | None) -> tuple[pd.DataFrame, list[int]]:
    """Select the rows of some layers.

    Args:
        frame: a frame with the column `layer`.
        name: what the error message calls it.
        layers: the layers to select; None: the last third of the layers in the frame, at least one.

    Returns:
        The selected rows and the sorted layers.

    Raises:
        DPCInterpError: `layers` is empty, or the frame has no rows of one of them.
    """
    known = sorted({int(layer) for layer in frame["layer"]})
    if layers is None:
        chosen = [known[i] for i in deep_layers(len(known))]
    else:
        chosen = sorted({int(layer) for layer in layers})
    unknown = [layer for layer in chosen if layer not in known]
    if unknown:
        raise DPCInterpError(f"the {name} frame's column 'layer' lacks {unknown}; it has: {known}")
    if not chosen:
        raise DPCInterpError(f"no layers to plot; name at least one layer of the {name} frame: {known}")
    return frame[frame["layer"].isin(chosen)], chosen


def layer_span(layers: Sequence[int]) -> str:
    """Write sorted layers as `layer 5`, `layers 4–7` or `layers 1, 4, 6`."""
    return f"layer{'s' if len(layers) > 1 else ''} {layer_range(layers, dash='–', comma=', ')}"


def by_instance(frame: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Mean `value` of each instance (rows, sorted) at each value of the column `columns`; NaN where it has none."""
    return frame.pivot_table(index="instance", columns=columns, values="value", aggfunc="mean", observed=True)


def matrix(table: pd.DataFrame) -> NDArray[np.float64]:
    """The numbers of a table as float64."""
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def log_flow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm of flow; NaN where the flow is exactly 0, as where a gradient underflows.

    Args:
        values: [n, k], at least 0; NaN stays NaN.

    Returns:
        [n, k].
    """
    return np.log(np.where(values == 0, np.nan, values))


def central_interval(
    values: NDArray[np.float64], *, log: bool, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The mean of each column with its 95% interval, or the geometric mean with that of the mean logarithm.

    Args:
        values: [n, k]; NaN entries are left out of their column.
        log: take the geometric mean, see `log_flow`.
        seed: seed of the bootstrap.

    Returns:
        Mean, lower and upper bound, each [k].
    """
    if not log:
        return mean_interval(values, seed=seed)
    mean, low, high = (np.exp(bound) for bound in mean_interval(log_flow(values), seed=seed))
    return mean, low, high


def label(column: str) -> str:
    """The label of a column on an axis."""
    return LABELS.get(column, column.replace("_", " "))
