"""Intervals over problems and tuning seeds cover the truth at their rate; a bootstrap of three seeds does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dpc_interp.evaluation.crossed import Estimate, over_prompts
from dpc_interp.evaluation.intervals import resamples

N_PROBLEMS, N_SEEDS = 500, 3


def simulated(seed_sd: float, repeats: int = 300) -> tuple[float, float]:
    """Share of tables that this interval, and Owen's pigeonhole bootstrap, cover: truth 0, spread of the problems 1, of
    the seeds `seed_sd`, of both together 1.
    """
    rng = np.random.default_rng(0)
    problems = resamples(N_PROBLEMS, seed=1, n_resamples=300) / N_PROBLEMS
    seeds = resamples(N_SEEDS, seed=2, n_resamples=300) / N_SEEDS
    crossed, pigeonhole = 0, 0
    for _ in range(repeats):
        table = seed_sd * rng.normal(size=N_SEEDS) + rng.normal(size=(N_PROBLEMS, 1))
        table = table + rng.normal(size=(N_PROBLEMS, N_SEEDS))
        draws = problems @ table
        low, high = over_prompts(table.mean(axis=0), draws).interval()
        crossed += low < 0 < high
        low, high = np.quantile((seeds * draws).sum(axis=1), [0.025, 0.975])
        pigeonhole += low < 0 < high
    return crossed / repeats, pigeonhole / repeats


@pytest.mark.parametrize("seed_sd", [0.0, 0.05, 0.2, 1.0])
def test_the_interval_covers_about_95_percent(seed_sd: float) -> None:
    """Within three standard errors of a rate of 94 in 300 tables."""
    covered, pigeonhole = simulated(seed_sd)
    assert covered == pytest.approx(0.94, abs=0.042)
    if seed_sd == 1.0:
        assert pigeonhole == pytest.approx(0.75, abs=0.06), "resampled seeds never leave their range"


def test_seeds_that_differ_give_the_t_interval_of_the_seeds() -> None:
    values = np.array([1.0, 4.0, 7.0])
    found = over_prompts(values, np.tile(values, (10, 1)))
    expected = scipy_stats.t.interval(0.95, 2, 4.0, 3 / np.sqrt(3))
    assert (found.value, found.df) == (4, 2)
    assert found.interval() == pytest.approx(expected)
    assert found.p(0.0) == pytest.approx(scipy_stats.ttest_1samp(values, 0.0).pvalue)


def test_seeds_that_agree_give_the_interval_over_problems() -> None:
    rng = np.random.default_rng(0)
    draws = np.repeat(2 + 0.1 * rng.normal(size=(4000, 1)), 3, axis=1)
    found = over_prompts(np.full(3, 2.0), draws)
    assert found.df == np.inf
    assert found.interval() == pytest.approx((2 - 0.196, 2 + 0.196), abs=0.01)


def test_degrees_of_freedom_by_hand() -> None:
    """MS 9, so 3 of the variance between three seeds; a covariance of 3: df = 2 (6 / 3)^2 = 8."""
    draws = np.repeat(np.sqrt(3) * np.array([[-1.0], [1.0]]) / np.sqrt(2), 3, axis=1)  # variance 3, correlation 1
    found = over_prompts(np.array([1.0, 4.0, 7.0]), draws)
    assert (found.se, found.df) == (pytest.approx(np.sqrt(6)), pytest.approx(8))


def test_one_prompt_is_judged_over_problems_and_lost_draws_are_left_out() -> None:
    rng = np.random.default_rng(1)
    draws = 5 + rng.normal(size=(1000, 1))
    found = over_prompts(np.array([5.0]), np.concatenate([draws, [[np.nan]]]))
    assert (found.se, found.df) == (pytest.approx(draws.std(ddof=1)), np.inf)


def test_what_does_not_vary_is_certain() -> None:
    same = Estimate(0.0, 0.0, np.inf)
    assert same.interval() == (0, 0)
    assert (same.p(0.0), same.p(0.5)) == (1, 0)
