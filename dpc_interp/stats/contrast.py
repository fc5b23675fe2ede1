"""The contrast of wrong and right answers: Hedges' g with bootstrap intervals, and Welch's t test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.stats.bootstrap import percentile_interval, resamples
from dpc_interp.stats.paired import holm
from dpc_interp.stats.weighted import Array, weighted_hedges_g


def outcome_effects(wrong: np.ndarray, right: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Compare wrong and right answers in each of k values, such as the flow into k layers.

    Args:
        wrong: [n, k], the values of wrong answers.
        right: [m, k], the values of right answers.
        seed: seed of the bootstrap.

    Returns:
        One row per value: `n_right`, `n_wrong`; the means `right` and `wrong`; `effect` (Hedges' g, positive where
        wrong is larger) with `low` and `high`; `p` (Welch's t test) and `p_holm`, corrected over the rows. Effect and p
        are NaN where an outcome has fewer than two instances or nothing varies.
    """
    from scipy import stats as scipy_stats

    k = wrong.shape[1]
    effect, low, high = hedges_g(wrong, right, seed=seed)
    means = [group.mean(axis=0) if len(group) else np.full(k, np.nan) for group in (right, wrong)]
    p = np.full(k, np.nan)
    if min(len(wrong), len(right)) > 1:
        varies = np.isfinite(effect)
        p[varies] = scipy_stats.ttest_ind(wrong[:, varies], right[:, varies], equal_var=False).pvalue
    columns = {"n_right": len(right), "n_wrong": len(wrong), "right": means[0], "wrong": means[1], "effect": effect}
    return pd.DataFrame({**columns, "low": low, "high": high, "p": p, "p_holm": holm(p)}, index=range(k))


def hedges_g(wrong: Array, right: Array, *, seed: int = 0) -> tuple[Array, Array, Array]:
    """Hedges' g of each column with its 95% interval; positive where wrong is larger, see `weighted_hedges_g`.

    The two outcomes are resampled separately.

    Args:
        wrong: [n, k].
        right: [m, k].
        seed: seed of the bootstrap.

    Returns:
        Effect, lower and upper bound, each [k]; NaN where an outcome has fewer than two instances or nothing varies.
    """
    n, m = len(wrong), len(right)
    if min(n, m) < 2:
        undefined = np.full(wrong.shape[1], np.nan)
        return undefined, undefined, undefined
    draws = weighted_hedges_g(wrong, right, resamples(n, seed=seed), resamples(m, seed=seed + 1))
    low, high = percentile_interval(draws)
    return weighted_hedges_g(wrong, right, np.ones((1, n)), np.ones((1, m)))[0], low, high
