"""Statistics of weighted instances: mean, Hedges' g, AUROC and average precision, Spearman's correlation.

Weights [n_resamples, n] count how often each instance was drawn, so that all resamples of a bootstrap are one matrix
product or one cumulative sum; the estimate itself is the same formula at weight 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def weighted_mean(values: Array, weights: Array) -> Array:
    """Means [n_resamples, k] of `values` [n, k]; NaN entries are left out of their column."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(known, values, 0.0) / (weights @ known)


def weighted_hedges_g(wrong: Array, right: Array, wrong_weights: Array, right_weights: Array) -> Array:
    """Hedges' g [n_resamples, k] of `wrong` [n, k] over `right` [m, k]; positive where wrong is larger.

    g = (1 - 3 / (4 (n + m - 2) - 1)) (mean wrong - mean right) / pooled standard deviation, n and m the weights' sums.
    NaN where n + m is below 4, where an outcome was not drawn, or where nothing varies.
    """
    n, m = (weights.sum(axis=1, keepdims=True) for weights in (wrong_weights, right_weights))
    centre = np.concatenate([wrong, right]).mean(axis=0)  # keeps the sums of squares exact for small, close values
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


def weighted_ranking(scores: Array, positive: Flags, weights: Array) -> Array:
    """AUROC and average precision [n_resamples, 2] of `scores` [n] against `positive` [n], ties shared.

    NaN where a resample lacks an outcome.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last of each run of ties
    positive, weights = positive[order], weights[:, order]
    hits = np.cumsum(weights * positive, axis=1)[:, ends]
    misses = np.cumsum(weights * ~positive, axis=1)[:, ends]
    with np.errstate(invalid="ignore"):
        recall = np.pad(hits / hits[:, -1:], ((0, 0), (1, 0)))
        fall_out = np.pad(misses / misses[:, -1:], ((0, 0), (1, 0)))
    precision = hits / np.maximum(hits + misses, 1.0)
    auroc = (np.diff(fall_out) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1)
    return np.stack([auroc, (np.diff(recall) * precision).sum(axis=1)], axis=1)


def weighted_spearman(first: Array, second: Array, weights: Array) -> Array:
    """Spearman's correlation [n_resamples] of `first` [n] and `second` [n], ranked anew in each resample."""
    n = weights.sum(axis=1)
    ranks = [weighted_ranks(values, weights) for values in (first, second)]
    centred = [rank - (n[:, None] + 1) / 2 for rank in ranks]
    products = [(weights * centred[a] * centred[b]).sum(axis=1) for a, b in ((0, 1), (0, 0), (1, 1))]
    with np.errstate(invalid="ignore", divide="ignore"):
        return products[0] / np.sqrt(products[1] * products[2])


def weighted_ranks(values: Array, weights: Array) -> Array:
    """Mid-ranks [n_resamples, n] of `values` [n] among the instances drawn, counted from 1."""
    order = np.argsort(values, kind="stable")
    starts = np.append(True, np.diff(values[order]) > 0)  # the first of each run of ties
    run = np.cumsum(starts) - 1
    of_run = np.add.reduceat(weights[:, order], np.flatnonzero(starts), axis=1)
    middle = np.cumsum(of_run, axis=1) - of_run + (of_run + 1) / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = middle[:, run]
    return ranks
