"""Statistics of weighted instances: mean, Hedges' g, AUROC and average precision.

Weights [n_resamples, n] count how often each instance was drawn. All resamples of a bootstrap are then one matrix
product or one cumulative sum, and the estimate itself is the same formula with every weight 1. An instance of weight k
counts as k copies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def weighted_mean(values: Array, weights: Array) -> Array:
    """Weighted means of each column; NaN entries are left out of their column.

    Args:
        values: [n, k].
        weights: [n_resamples, n].

    Returns:
        [n_resamples, k]; NaN where a column has no known entry in a resample.
    """
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(known, values, 0.0) / (weights @ known)


def weighted_hedges_g(wrong: Array, right: Array, wrong_weights: Array, right_weights: Array) -> Array:
    """Hedges' g of each column, the standardised difference of two means; positive where wrong is larger.

    g = (1 - 3 / (4 (n + m - 2) - 1)) (mean wrong - mean right) / pooled standard deviation, where n and m are the sums
    of the weights.

    Args:
        wrong: [n, k].
        right: [m, k].
        wrong_weights: [n_resamples, n].
        right_weights: [n_resamples, m].

    Returns:
        [n_resamples, k]; NaN where n + m is below 4, an outcome was not drawn, or nothing varies.
    """
    n, m = (weights.sum(axis=1, keepdims=True) for weights in (wrong_weights, right_weights))
    # without a common centre, the sums of squares of small, close values would cancel
    centre = np.concatenate([wrong, right]).mean(axis=0)
    freedom = np.where((n > 0) & (m > 0) & (n + m > 3), n + m - 2, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong_mean, wrong_squares = _moments(wrong - centre, wrong_weights, n)
        right_mean, right_squares = _moments(right - centre, right_weights, m)
        pooled = np.sqrt((wrong_squares + right_squares) / freedom)
        ratio = (wrong_mean - right_mean) / pooled
        return (1 - 3 / (4 * freedom - 1)) * np.where(pooled > 0, ratio, np.nan)


def _moments(values: Array, weights: Array, n: Array) -> tuple[Array, Array]:
    """Weighted mean and sum of squares about it, each [n_resamples, k]."""
    mean = weights @ values / n
    return mean, np.maximum(weights @ values**2 - n * mean**2, 0.0)


def ranking_sums(scores: Array, positive: Flags, weights: Array) -> Array:
    """Numerators and denominators of AUROC and average precision, which can be summed over several rankings.

        AUROC = ordered pairs / pairs          a pair: a positive and a negative instance; a tie counts half
        average precision = sum over positives of the precision at their score / positives

    The precision at a score is the share of positives among all instances that score as high or higher.

    Args:
        scores: [n].
        positive: [n].
        weights: [n_resamples, n].

    Returns:
        [2, n_resamples, 2]: numerators, then denominators; in the last axis AUROC, then average precision.
    """
    order = np.argsort(-scores, kind="stable")
    tie_starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # first index of each run of equal scores
    hits, misses = (np.add.reduceat((weights * flags)[:, order], tie_starts, axis=1) for flags in (positive, ~positive))
    n_hits, n_misses = hits.sum(axis=1), misses.sum(axis=1)
    hits_so_far, misses_so_far = hits.cumsum(axis=1), misses.cumsum(axis=1)
    ordered_pairs = (hits * (n_misses[:, None] - misses_so_far + misses / 2)).sum(axis=1)
    # the maximum only matters where nothing was drawn so far, and there `hits` is 0
    precision_sum = (hits * hits_so_far / np.maximum(hits_so_far + misses_so_far, 1.0)).sum(axis=1)
    numerators = np.stack([ordered_pairs, precision_sum], axis=1)
    return np.stack([numerators, np.stack([n_hits * n_misses, n_hits], axis=1)])


def weighted_ranking(scores: Array, positive: Flags, weights: Array) -> Array:
    """AUROC and average precision of scores, see `ranking_sums`.

    Args:
        scores: [n].
        positive: [n].
        weights: [n_resamples, n].

    Returns:
        [n_resamples, 2]: AUROC, NaN where a resample lacks positives or negatives; average precision, NaN where it
        lacks positives.
    """
    numerators, denominators = ranking_sums(scores, positive, weights)
    with np.errstate(invalid="ignore"):
        return numerators / denominators
