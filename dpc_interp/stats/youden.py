"""Youden's J of a threshold, and how often chance reaches it.

    J(c) = hit rate - false-alarm rate where a value above c is called positive

The largest J over all thresholds is above 0 by chance alone. So it is compared with the largest J after outcomes have
been shuffled.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.stats.weighted import Array, Flags

N_SHUFFLES = 1000


def youden(values: Array, positive: Flags, threshold: float) -> float:
    """J at a threshold.

    Args:
        values: [n].
        positive: [n].
        threshold: values strictly above it are called positive.

    Returns:
        J; NaN where an outcome is missing.
    """
    if positive.all() or not positive.any():
        return float("nan")
    fires = values > threshold
    return float(fires[positive].mean() - fires[~positive].mean())


def largest_youden(values: Array, positive: Flags) -> Array:
    """The largest J over all thresholds, never firing among them.

    Args:
        values: [n].
        positive: [n_outcomes, n], each with both outcomes.

    Returns:
        [n_outcomes].
    """
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order], append=-np.inf))  # a threshold cannot part equal values
    hits = positive[:, order].cumsum(axis=1)[:, ends]
    alarms = np.arange(1, len(values) + 1)[ends] - hits
    n_positive = positive.sum(axis=1, keepdims=True)
    differences = hits / n_positive - alarms / (len(values) - n_positive)
    return np.maximum(differences.max(axis=1), 0.0)


def youden_p(values: Array, positive: Flags, seed: int = 0) -> float:
    """The share of shuffled outcomes whose largest J is at least that of the true ones, which count as one shuffle.

    Args:
        values: [n].
        positive: [n].
        seed: seed of the shuffles.

    Returns:
        p; NaN where an outcome is missing.
    """
    if positive.all() or not positive.any():
        return float("nan")
    shuffled = np.random.default_rng(seed).permuted(np.tile(positive, (N_SHUFFLES, 1)), axis=1)
    reached = largest_youden(values, shuffled) >= largest_youden(values, positive[None]) - 1e-12
    return float((reached.sum() + 1) / (N_SHUFFLES + 1))
