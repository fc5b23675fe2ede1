"""The rows of a check's table, and the error between two computations of the same logits.

error = max |a - b| / max |b|      a, b: log-probabilities of the two computations, in float64
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan, nan
from typing import NamedTuple

from torch import Tensor


class CheckRow(NamedTuple):
    """One row of the table of `check_model`.

    Attributes:
        check: name of the check.
        verdict: `pass`, `fail` or `not checked`.
        error: the largest error; NaN where logits are not compared.
        tolerance: the largest error that passes; NaN where logits are not compared.
        reason: where the largest error is, or why the check failed or was not made.
    """

    check: str
    verdict: str
    error: float
    tolerance: float
    reason: str


class Comparison(NamedTuple):
    """Two computations of the same logits.

    Attributes:
        logits: by this package.
        expected: by the other computation.
        place: what is compared, for the table.
    """

    logits: Tensor
    expected: Tensor
    place: str


def compare(name: str, comparisons: Sequence[Comparison], tolerance: float) -> CheckRow:
    """Compare logits and report the largest error.

    Args:
        name: name of the check.
        comparisons: pairs of logits.
        tolerance: the largest error that passes.

    Returns:
        The row of the check; it fails also where the vocabularies differ.
    """
    largest, place = -1.0, ""
    for comparison in comparisons:
        n_ours, n_theirs = comparison.logits.shape[-1], comparison.expected.shape[-1]
        if n_ours != n_theirs:
            return without_error(name, "fail", f"the vocabularies differ: {n_ours} entries here, {n_theirs} there")
        error = relative_error(comparison)
        if error > largest:
            largest, place = error, comparison.place
    passes = largest <= tolerance
    verdict, reason = ("pass", place) if passes else ("fail", f"largest difference: {place}")
    return CheckRow(name, verdict, largest, tolerance, reason)


def relative_error(comparison: Comparison) -> float:
    """The error of log-probabilities, max |a - b| / max |b|; infinite instead of NaN, so that it never passes."""
    expected = comparison.expected.cpu().double().log_softmax(-1)
    log_probs = comparison.logits.cpu().double().log_softmax(-1).view_as(expected)
    error = float((log_probs - expected).abs().max() / expected.abs().max())
    return inf if isnan(error) else error


def without_error(check: str, verdict: str, reason: str) -> CheckRow:
    """A row of a check that compares no logits, or was not made.

    Args:
        check: name of the check.
        verdict: `pass`, `fail` or `not checked`.
        reason: why.
    """
    return CheckRow(check, verdict, nan, nan, reason)
