"""Estimates over problems and tuning seeds together, for any statistic of a tuned prompt (docs/method.md, section 7.5).

Prompts s = 1..S answer the same problems; theta_s is the estimate from prompt s. With MS the variance of theta_s
between prompts, Cov the mean covariance of two prompts' estimates when problems are resampled for all prompts
together, and V the mean variance of one prompt's estimate over those resamples:

    theta = mean of theta_s     B = max(MS, V - Cov) / S     Var = B + max(Cov, 0)     df = (S - 1) (Var / B)^2

and theta +- t(df) sqrt(Var) is the interval. This is Obuchowski and Rockette's (1995) analysis of readers who read the
same cases, with tuned prompts as the readers and Hillis's (2007) degrees of freedom. The expectation of MS is V - Cov
plus the variance of the prompts' true values, so MS below V - Cov is chance: without the floor, three prompts that each
fix one answer of 200 would seem certain (p = 0), with it p is 0.22.

Why seeds are not resampled: a percentile bootstrap that draws seeds and problems (Owen 2007) never leaves the range of
the three seeds. Simulated with 3 seeds and 500 problems, it covers the truth in 98 of 100 tables where seeds are alike,
in 85 where they spread a fifth as wide as the problems and in about 75 where they spread as wide; this interval covers
in 98, 94 and 95 (`tests/stats/test_pooling.py`). It is wider in return: where seeds differ much, df is 2 and t is 4.3.
One prompt says nothing about other seeds: its interval is over problems only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpc_interp.stats.bootstrap import LEVEL
from dpc_interp.stats.weighted import Array


@dataclass(frozen=True)
class Estimate:
    """An estimate with its uncertainty.

    Attributes:
        value: the estimate.
        se: its standard error.
        df: degrees of freedom of the t distribution; infinite: the normal distribution.
    """

    value: float
    se: float
    df: float

    def interval(self) -> tuple[float, float]:
        """The lower and upper bound of the 95% interval."""
        from scipy import stats as scipy_stats

        half_width = float(scipy_stats.t.ppf((1 + LEVEL) / 2, self.df)) * self.se
        return self.value - half_width, self.value + half_width

    def p(self, null: float) -> float:
        """The two-sided p of a null hypothesis.

        Args:
            null: the value under the hypothesis.

        Returns:
            p; if the standard error is 0, 1 at the value itself and 0 elsewhere.
        """
        from scipy import stats as scipy_stats

        if self.se == 0:
            return float(self.value == null)
        return float(2 * scipy_stats.t.sf(abs(self.value - null) / self.se, self.df))


def pool_over_prompts(values: Array, draws: Array) -> Estimate:
    """Estimate the mean of a statistic over prompts.

    Args:
        values: [n_prompts], the statistic of each prompt.
        draws: [n_resamples, n_prompts], the statistic in each resample of the problems, drawn once for all prompts;
            resamples with a NaN are left out.

    Returns:
        The mean with its standard error and degrees of freedom.
    """
    draws = draws[np.isfinite(draws).all(axis=1)]
    return pool_estimates(values, np.atleast_2d(np.cov(draws, rowvar=False)))


def pool_estimates(values: Array, covariance: Array) -> Estimate:
    """Estimate the mean of a statistic over prompts from the estimate of each.

    Args:
        values: [n_prompts], the statistic of each prompt.
        covariance: [n_prompts, n_prompts], covariance of the estimates over problems.

    Returns:
        The mean with its standard error and degrees of freedom.
    """
    n, value = len(values), float(values.mean())
    if n == 1:
        return Estimate(value, float(np.sqrt(covariance[0, 0])), np.inf)
    shared = (covariance.sum() - np.trace(covariance)) / (n * (n - 1))
    between = max(values.var(ddof=1), np.trace(covariance) / n - shared) / n
    variance = between + max(shared, 0.0)
    df = (n - 1) * (variance / between) ** 2 if between > 0 else np.inf
    return Estimate(value, float(np.sqrt(variance)), float(df))
