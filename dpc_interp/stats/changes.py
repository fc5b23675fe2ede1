"""How many answers a method changes for the better, with an interval that agrees with exact tests.

A method fixes or breaks the answers of prompt tuning, or leaves them. With f fixed and b broken of n answers of each
prompt the gain is the mean of (f - b) / n over prompts. Changes are rare, so a bootstrap of them is too sure: where 4
answers are fixed and none is broken, 200 resamples rarely hold no fixed answer at all, though the exact McNemar p is
0.125. The interval is the hull of two:

1. Bonett and Price (2012): one fixed and one broken answer are added, 1 / S of each to each of S prompts, so that the
   width does not vanish where nothing changes. Over several prompts these estimates are pooled as in `pooling.py`.
2. Exact, given which problems changed and by how much: if each of them changed for the better with probability pi,
   independently, the interval of pi by test inversion (Clopper and Pearson) gives that of the gain. It covers chance
   over problems where several prompts fix the same few problems. For one prompt its test is McNemar's exact test.

So the interval leaves 0 out only where both tests reject 0 at the 5% level, and for one prompt exactly where McNemar's
exact test does (`tests/stats/test_changes.py`). How often verdicts that rest on it err is in
`figures/verdict_calibration.png`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from dpc_interp.stats.bootstrap import LEVEL, percentile_interval
from dpc_interp.stats.pooling import pool_estimates
from dpc_interp.stats.weighted import Array

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """The mean gain of a method over another, as a share of answers.

    Attributes:
        value: the mean over prompts and problems.
        low: lower bound of the 95% interval.
        high: upper bound of the 95% interval.
        p: two-sided p of no gain: that of the exact test, over several prompts the larger one of both tests.
        df: degrees of freedom over prompts; infinite for one prompt.
    """

    value: float
    low: float
    high: float
    p: float
    df: float


def gain(changes: Array) -> Gain:
    """Estimate the gain of a method from the changes of the answers.

    Args:
        changes: [n_problems, n_prompts], 1 where the method fixes the answer, -1 where it breaks it, else 0; at least
            one problem.

    Returns:
        The gain with its interval and p.
    """
    n, n_prompts = changes.shape
    fixed, broken = (changes > 0).sum(axis=0), (changes < 0).sum(axis=0)
    added = 1 / n_prompts
    share_fixed, share_broken = (fixed + added) / (n + 2 * added), (broken + added) / (n + 2 * added)
    differences = share_fixed - share_broken
    covariance = np.atleast_2d(np.cov(changes, rowvar=False, ddof=0)) / n
    covariance[np.diag_indices(n_prompts)] = (share_fixed + share_broken - differences**2) / (n + 2 * added)
    pooled = pool_estimates(differences, covariance)
    net = changes.sum(axis=1).astype(np.int64)
    exact_low, exact_high = _exact_interval(net)
    low, high = pooled.interval()
    return Gain(
        value=float(changes.mean()),
        low=min(low, exact_low / (n * n_prompts)),
        high=max(high, exact_high / (n * n_prompts)),
        p=exact_p(net) if n_prompts == 1 else max(pooled.p(0.0), exact_p(net)),
        df=pooled.df,
    )


def widened(estimate: Gain, shifts: Array) -> Gain:
    """Widen an interval by an independent source of chance.

    Args:
        estimate: the gain with its interval.
        shifts: resamples of what the other source adds to the gain, such as another calibration; may be empty.

    Returns:
        The gain with the distances of both bounds added in quadrature to those of the shifts' 2.5% and 97.5% quantiles.
        Its p is unchanged.
    """
    if not len(shifts):
        return estimate
    below, above = (float(bound) for bound in percentile_interval(shifts))
    return replace(
        estimate,
        low=estimate.value - float(np.hypot(estimate.value - estimate.low, max(0.0, -below))),
        high=estimate.value + float(np.hypot(estimate.high - estimate.value, max(0.0, above))),
    )


def exact_p(net: Counts) -> float:
    """The two-sided p of the hypothesis that each problem changed for the better or the worse with equal probability.

    Args:
        net: [n_problems], the answers that are fixed less those that are broken, over all prompts.

    Returns:
        p; 1 if nothing changed. Where every |net| is 0 or 1 this is McNemar's exact test.
    """
    sizes, gained = _sizes(net), int(net[net > 0].sum())
    at_least, at_most = _tails(sizes, gained, 0.5)
    return min(1.0, 2 * min(at_least, at_most))


def _exact_interval(net: Counts) -> tuple[float, float]:
    """Bounds of the sum of `net`, given its absolute values."""
    from scipy.optimize import brentq

    sizes, gained = _sizes(net), int(net[net > 0].sum())
    total, tail = int(np.abs(net).sum()), (1 - LEVEL) / 2
    if not total:
        return 0.0, 0.0
    low = 0.0 if gained == 0 else brentq(lambda pi: _tails(sizes, gained, pi)[0] - tail, 0, 1)
    high = 1.0 if gained == total else brentq(lambda pi: _tails(sizes, gained, pi)[1] - tail, 0, 1)
    return (2 * low - 1) * total, (2 * high - 1) * total


def _sizes(net: Counts) -> list[tuple[int, int]]:
    """How many problems changed by each number of answers: (number of answers, number of problems)."""
    sizes, counts = np.unique(np.abs(net[net != 0]), return_counts=True)
    return list(zip(sizes.tolist(), counts.tolist(), strict=True))


def _tails(sizes: list[tuple[int, int]], gained: int, pi: float) -> tuple[float, float]:
    """The probabilities that at least and at most `gained` answers are gained if each problem gains with `pi`."""
    distribution = np.ones(1)
    for size, count in sizes:
        of_size = np.zeros(size * count + 1)
        of_size[::size] = _binomial(count, pi)
        distribution = np.convolve(distribution, of_size)
    return float(distribution[gained:].sum()), float(distribution[: gained + 1].sum())


def _binomial(count: int, pi: float) -> Array:
    """The binomial distribution of `count` trials; 17 us where that of `scipy.stats`, which checks more, takes 113."""
    k = np.arange(count + 1)
    choose = special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1)
    return np.exp(choose + special.xlogy(k, pi) + special.xlog1py(count - k, -pi))
