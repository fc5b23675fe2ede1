"""95% intervals by seeded percentile bootstrap over instances: of means, effect sizes, AUROC and average precision.

A resample is a row of counts [n_resamples, n], how often each instance was drawn; `effects.py` has the statistics of
such weighted instances. Intervals over problems and tuning seeds at once are those of `crossed.py`.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.evaluation.effects import Array, Flags, weighted_hedges_g, weighted_mean, weighted_ranking

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
    low, high = percentile_interval(weighted_mean(values, resamples(len(values), seed=seed)))
    return weighted_mean(values, np.ones((1, len(values))))[0], low, high


def hedges_g(wrong: Array, right: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Hedges' g of `wrong` [n, k] over `right` [m, k] with low and high, each [k]; positive where wrong is larger.

    The outcomes are resampled apart. NaN where an outcome has fewer than two instances or nothing varies; the formula
    is that of `weighted_hedges_g`.
    """
    n, m = len(wrong), len(right)
    if min(n, m) < 2:
        nothing = np.full(wrong.shape[1], np.nan)
        return nothing, nothing, nothing
    draws = weighted_hedges_g(wrong, right, resamples(n, seed=seed), resamples(m, seed=seed + 1))
    low, high = percentile_interval(draws)
    return weighted_hedges_g(wrong, right, np.ones((1, n)), np.ones((1, m)))[0], low, high


def ranking_interval(scores: Array, positive: Flags, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """(AUROC, average precision) with low and high, each [2], of `scores` [n] against `positive` [n], ties shared.

    Positives and negatives are resampled apart, so that no resample lacks one.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    weights = np.empty((N_RESAMPLES, len(scores)))
    weights[:, positive] = resamples(int(positive.sum()), seed=seed)
    weights[:, ~positive] = resamples(int((~positive).sum()), seed=seed + 1)
    low, high = percentile_interval(weighted_ranking(scores, positive, weights))
    return weighted_ranking(scores, positive, np.ones((1, len(scores))))[0], low, high
