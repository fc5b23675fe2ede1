"""Intervals over problems and tuning seeds cover the truth at their level; a bootstrap of three seeds does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.pooling import Estimate, pool_over_prompts

N_PROBLEMS, N_SEEDS = 500, 3


def simulated(seed_sd: float, repeats: int = 300) -> tuple[float, float]:
    """Coverage of this interval and of Owen's pigeonhole bootstrap.

    The truth is 0; the standard deviations are 1 between problems, `seed_sd` between seeds and 1 for their interaction.
    """
    rng = np.random.default_rng(0)
    problems = resamples(N_PROBLEMS, seed=1, n_resamples=300) / N_PROBLEMS
    seeds = resamples(N_SEEDS, seed=2, n_resamples=300) / N_SEEDS
    pooled, pigeonhole = 0, 0
    for _ in range(repeats):
        table = seed_sd * rng.normal(size=N_SEEDS) + rng.normal(size=(N_PROBLEMS, 1))
        table = table + rng.normal(size=(N_PROBLEMS, N_SEEDS))
        draws = problems @ table
        low, high = pool_over_prompts(table.mean(axis=0), draws).interval()
        pooled += low < 0 < high
        low, high = np.quantile((seeds * draws).sum(axis=1), [0.025, 0.975])
        pigeonhole += low < 0 < high
    return pooled / repeats, pigeonhole / repeats


@pytest.mark.parametrize("seed_sd", [0.0, 0.05, 0.2, 1.0])
def test_the_interval_covers_about_95_percent(seed_sd: float) -> None:
    """Within three standard errors of 94%, from 300 tables."""
    covered, pigeonhole_covered = simulated(seed_sd)
    assert covered == pytest.approx(0.94, abs=0.042)
    if seed_sd == 1.0:
        assert pigeonhole_covered == pytest.approx(0.75, abs=0.06), "resampled seeds never leave their range"


def test_seeds_that_differ_give_the_t_interval_of_the_seeds() -> None:
    values = np.array([1.0, 4.0, 7.0])
    pooled = pool_over_prompts(values, np.tile(values, (10, 1)))
    expected = scipy_stats.t.interval(0.95, 2, 4.0, 3 / np.sqrt(3))
    assert (pooled.value, pooled.df) == (4, 2)
    assert pooled.interval() == pytest.approx(expected)
    assert pooled.p(0.0) == pytest.approx(scipy_stats.ttest_1samp(values, 0.0).pvalue)


def test_seeds_that_agree_give_the_interval_over_problems() -> None:
    rng = np.random.default_rng(0)
    draws = np.repeat(2 + 0.1 * rng.normal(size=(4000, 1)), 3, axis=1)
    pooled = pool_over_prompts(np.full(3, 2.0), draws)
    assert pooled.df == np.inf
    assert pooled.interval() == pytest.approx((2 - 0.196, 2 + 0.196), abs=0.01)


def test_three_prompts_with_one_fixed_answer_of_200_each_are_not_certain() -> None:
    """MS is 0 and V - Cov about p (1 - p) / n: t = 1.73 with 2 degrees of freedom."""
    changes = np.zeros((200, 3))
    changes[[0, 1, 2], [0, 1, 2]] = 1
    draws = resamples(200, seed=0) @ changes / 200
    pooled = pool_over_prompts(changes.mean(axis=0), draws)
    assert pooled.df == pytest.approx(2, abs=0.2)
    assert pooled.p(0.0) == pytest.approx(0.22, abs=0.02)


def test_degrees_of_freedom_by_hand() -> None:
    """MS = 9, so MS / S = 3, and Cov = 3: df = 2 (6 / 3)^2 = 8."""
    draws = np.repeat(np.sqrt(3) * np.array([[-1.0], [1.0]]) / np.sqrt(2), 3, axis=1)  # variance 3, correlation 1
    pooled = pool_over_prompts(np.array([1.0, 4.0, 7.0]), draws)
    assert (pooled.se, pooled.df) == (pytest.approx(np.sqrt(6)), pytest.approx(8))


def test_one_prompt_has_the_interval_over_problems_without_nan_draws() -> None:
    rng = np.random.default_rng(1)
    draws = 5 + rng.normal(size=(1000, 1))
    pooled = pool_over_prompts(np.array([5.0]), np.concatenate([draws, [[np.nan]]]))
    assert (pooled.se, pooled.df) == (pytest.approx(draws.std(ddof=1)), np.inf)


def test_an_estimate_that_does_not_vary_is_certain() -> None:
    same = Estimate(0.0, 0.0, np.inf)
    assert same.interval() == (0, 0)
    assert (same.p(0.0), same.p(0.5)) == (1, 0)
