"""95% intervals by a seeded percentile bootstrap over instances: of means, AUROC and average precision.

A resample is a row of counts [n_resamples, n], how often each instance was drawn; `weighted.py` has the statistics of
instances weighted in this way. For intervals over problems and tuning seeds together see `pooling.py`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dpc_interp.stats.weighted import Array, Flags, weighted_mean, weighted_ranking

N_RESAMPLES = 1000
LEVEL = 0.95
"""Confidence level of every interval of the package."""


@lru_cache(maxsize=2)
def resamples(n: int, *, seed: int, n_resamples: int = N_RESAMPLES) -> Array:
    """Draw `n` instances with replacement, many times.

    The last draws are kept, because most statistics of an experiment are of the same n and seed.

    Args:
        n: number of instances.
        seed: seed of the draw.
        n_resamples: number of resamples.

    Returns:
        [n_resamples, n], how often each instance was drawn; each row sums to `n`. Read-only.
    """
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)
    counts.flags.writeable = False
    return counts


def percentile_interval(draws: Array) -> tuple[Array, Array]:
    """The lower and upper bound of a statistic from its resamples.

    Args:
        draws: [n_resamples, ...]; NaN, the statistic of a resample in which it is undefined, is left out.

    Returns:
        Lower and upper bound, each of the shape of one draw; NaN where every draw is NaN.
    """
    tail = (1 - LEVEL) / 2
    known = np.isfinite(draws).any(axis=0)
    # nanquantile warns about columns of NaN only: fill them, and mask the result
    low, high = np.nanquantile(np.where(known, draws, 0.0), [tail, 1 - tail], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_interval(values: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """The mean of each column with its interval.

    Args:
        values: [n, k]; NaN entries are left out of their column.
        seed: seed of the bootstrap.

    Returns:
        Mean, lower and upper bound, each [k].
    """
    low, high = percentile_interval(weighted_mean(values, resamples(len(values), seed=seed)))
    return weighted_mean(values, np.ones((1, len(values))))[0], low, high


def ranking_interval(scores: Array, positive: Flags, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """AUROC and average precision with their intervals.

    Positives and negatives are resampled separately, so every resample has both.

    Args:
        scores: [n].
        positive: [n], with at least one positive and one negative.
        seed: seed of the bootstrap.

    Returns:
        Estimate, lower and upper bound, each [2]: AUROC, average precision.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    weights = np.empty((N_RESAMPLES, len(scores)))
    weights[:, positive] = resamples(int(positive.sum()), seed=seed)
    weights[:, ~positive] = resamples(int((~positive).sum()), seed=seed + 1)
    low, high = percentile_interval(weighted_ranking(scores, positive, weights))
    return weighted_ranking(scores, positive, np.ones((1, len(scores))))[0], low, high
