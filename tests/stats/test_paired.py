"""Intervals of accuracies and paired tests: equal to SciPy's, worked by hand, or covering a simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control
from statsmodels.stats.multitest import multipletests

from dpc_interp.stats.paired import bootstrap_mean, exact_mcnemar, holm, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (263, 500)])
def test_wilson_equals_scipys(successes: int, n: int) -> None:
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(("fixed", "broken"), [(9, 2), (2, 9), (5, 5), (1, 0), (0, 0), (40, 15)])
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(fixed: int, broken: int) -> None:
    before = np.array([False] * fixed + [True] * broken + [True] * 6 + [False] * 4)
    after = np.array([True] * fixed + [False] * broken + [True] * 6 + [False] * 4)
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert exact_mcnemar(before, after) == pytest.approx(min(1.0, expected))


def test_holm_by_hand() -> None:
    """Smallest first: 3 * 0.01, then 2 * 0.02, then 0.03, never below the one before."""
    corrected = holm(np.array([0.03, np.nan, 0.01, 0.02]))
    np.testing.assert_allclose(corrected, [0.04, np.nan, 0.03, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()


@pytest.mark.parametrize("n", [1, 2, 12])
def test_holm_equals_that_of_statsmodels(n: int) -> None:
    p = np.random.default_rng(n).random(n) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_is_stricter_than_the_false_discovery_rate() -> None:
    p = np.random.default_rng(0).random(12) / 20
    assert (holm(p) >= false_discovery_control(p)).all()


def test_bootstrap_resamples_clusters() -> None:
    """Ten copies of each problem add no information."""
    values = np.random.default_rng(1).random(60)
    low, high = bootstrap_mean(values, np.arange(60), seed=2)
    repeated = bootstrap_mean(np.repeat(values, 10), np.repeat(np.arange(60), 10), seed=2)
    assert repeated == pytest.approx((low, high))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(60), rel=0.15)


def test_bootstrap_covers_about_95_percent() -> None:
    """Two prompts per problem, with similar values within a problem: 200 simulated tables of 50 problems."""
    rng = np.random.default_rng(3)
    problems = np.repeat(np.arange(50), 2)
    covered = []
    for _ in range(200):
        values = 1.5 + np.repeat(rng.normal(size=50), 2) + 0.3 * rng.normal(size=100)
        low, high = bootstrap_mean(values, problems)
        covered.append(low < 1.5 < high)
    assert 0.89 <= np.mean(covered) <= 0.99
