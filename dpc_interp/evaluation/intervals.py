"""95% intervals by seeded percentile bootstrap over instances: of means, effect sizes, AUROC and average precision.

A resample is a row of counts w [n_resamples, n], how often each instance was drawn. Every statistic is written for
weighted data, so that all resamples are one matrix product, and the estimate itself is the same formula at w = 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
N_RESAMPLES = 1000
LEVEL = 0.95


def resamples(n: int, *, seed: int, n_resamples: int = N_RESAMPLES) -> Array:
    """Counts [n_resamples, n]: `n` instances drawn with replacement, each row summing to `n`."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def percentile_interval(draws: Array) -> tuple[Array, Array]:
    """Lower and upper bound over the first axis; NaN draws (an empty resample) are left out."""
    tail = (1 - LEVEL) / 2
    finite = np.isfinite(draws).any(axis=0)
    low, high = np.nanquantile(np.where(finite, draws, 0.0), [tail, 1 - tail], axis=0)
    return np.where(finite, low, np.nan), np.where(finite, high, np.nan)


def mean_interval(values: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Mean, low and high [k] over the rows of `values` [n, k]; NaN entries are left out of their column."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def mean(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return weights @ filled / (weights @ known)

    low, high = percentile_interval(mean(resamples(len(values), seed=seed)))
    return mean(np.ones((1, len(values))))[0], low, high


def hedges_g(wrong: Array, right: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Hedges' g of `wrong` [n, k] over `right` [m, k] with low and high, each [k]; positive where wrong is larger.

    g = (1 - 3 / (4 (n + m - 2) - 1)) (mean wrong - mean right) / pooled standard deviation. The outcomes are resampled
    apart. NaN where an outcome has fewer than two instances or nothing varies.
    """
    n, m = len(wrong), len(right)
    if min(n, m) < 2:
        nothing = np.full(wrong.shape[1], np.nan)
        return nothing, nothing, nothing
    centre = np.concatenate([wrong, right]).mean(axis=0)  # keeps the sums of squares exact for small, close values

    def effect(wrong_weights: Array, right_weights: Array) -> Array:
        wrong_mean, wrong_squares = _moments(wrong - centre, wrong_weights)
        right_mean, right_squares = _moments(right - centre, right_weights)
        pooled = np.sqrt((wrong_squares + right_squares) / (n + m - 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (wrong_mean - right_mean) / pooled
        return (1 - 3 / (4 * (n + m - 2) - 1)) * np.where(pooled > 0, ratio, np.nan)

    low, high = percentile_interval(effect(resamples(n, seed=seed), resamples(m, seed=seed + 1)))
    return effect(np.ones((1, n)), np.ones((1, m)))[0], low, high


def _moments(values: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and sum of squares about it, each [n_resamples, k]."""
    n = len(values)
    mean = weights @ values / n
    return mean, np.maximum(weights @ values**2 - n * mean**2, 0.0)


def ranking_interval(scores: Array, positive: NDArray[np.bool_], *, seed: int = 0) -> tuple[Array, Array, Array]:
    """(AUROC, average precision) with low and high, each [2], of `scores` [n] against `positive` [n], ties shared.

    Positives and negatives are resampled apart, so that no resample lacks one.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last of each run of ties
    positive = positive[order]

    def ranking(weights: Array) -> Array:
        hits = np.cumsum(weights * positive, axis=1)[:, ends]
        misses = np.cumsum(weights * ~positive, axis=1)[:, ends]
        recall = np.pad(hits / hits[:, -1:], ((0, 0), (1, 0)))
        fall_out = np.pad(misses / misses[:, -1:], ((0, 0), (1, 0)))
        precision = hits / np.maximum(hits + misses, 1.0)
        auroc = (np.diff(fall_out) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1)
        return np.stack([auroc, (np.diff(recall) * precision).sum(axis=1)], axis=1)

    draws = np.empty((N_RESAMPLES, len(scores)))
    draws[:, positive] = resamples(int(positive.sum()), seed=seed)
    draws[:, ~positive] = resamples(int((~positive).sum()), seed=seed + 1)
    low, high = percentile_interval(ranking(draws))
    return ranking(np.ones((1, len(scores))))[0], low, high
