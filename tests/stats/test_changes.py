"""Gains of methods: agreement with exact tests, values worked by hand, and how often an interval leaves 0 out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from dpc_interp.stats.bootstrap import percentile_interval
from dpc_interp.stats.changes import Gain, exact_p, gain, widened


def table(fixed: int, broken: int, n: int) -> np.ndarray:
    """The changes of one prompt."""
    changes = np.zeros((n, 1))
    changes[:fixed], changes[fixed : fixed + broken] = 1, -1
    return changes


@pytest.mark.parametrize("n", [60, 500])
def test_for_one_prompt_the_interval_leaves_0_out_where_mcnemars_exact_test_rejects(n: int) -> None:
    for fixed in range(25):
        for broken in range(fixed + 1):
            p = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
            gained, lost = gain(table(fixed, broken, n)), gain(table(broken, fixed, n))
            assert (gained.low > 0) == (lost.high < 0) == (p < 0.05), (fixed, broken)
            assert (gained.p, lost.p) == pytest.approx((p, p))
            assert gained.low == pytest.approx(-lost.high)


def test_bonett_and_prices_interval_by_hand() -> None:
    """4 fixed of 200: shares 5 / 202 and 1 / 202, their difference +- 1.96 times its standard error."""
    share, other = 5 / 202, 1 / 202
    half_width = 1.959964 * np.sqrt((share + other - (share - other) ** 2) / 202)
    result = gain(table(4, 0, 200))
    assert (result.value, result.p) == pytest.approx((0.02, 0.125))
    assert result.high == pytest.approx(share - other + half_width)
    assert result.low == pytest.approx((2 * 0.025**0.25 - 1) * 4 / 200), "the exact bound is lower here"
    assert result.low < share - other - half_width < 0


def test_the_exact_interval_by_hand() -> None:
    """8 fixed, 1 broken of 9: Clopper and Pearson's bounds of 8 / 9, as gains of 20 answers."""
    low, high = binomtest(8, 9).proportion_ci(0.95, method="exact")
    result = gain(table(8, 1, 20))
    assert result.low <= (2 * low - 1) * 9 / 20 + 1e-9
    assert result.high >= (2 * high - 1) * 9 / 20 - 1e-9
    assert result.low == pytest.approx((2 * low - 1) * 9 / 20, abs=1e-6), "narrower than Bonett and Price's here"


def test_where_nothing_changes_the_interval_is_as_wide_as_the_number_of_answers_allows() -> None:
    for n_prompts in (1, 3, 10):
        result = gain(np.zeros((500, n_prompts)))
        assert (result.value, result.p) == pytest.approx((0, 1))
        assert -result.low == pytest.approx(result.high)
        assert 1 < result.high * 500 * n_prompts < 7, "about the rule of three"
    assert gain(np.zeros((50, 3))).high > gain(np.zeros((500, 3))).high


def test_one_fixed_answer_in_each_of_three_prompts_proves_nothing() -> None:
    changes = np.zeros((200, 3))
    changes[[0, 1, 2], [0, 1, 2]] = 1
    result = gain(changes)
    assert result.p > 0.2
    assert result.low < 0


def test_the_exact_test_over_prompts_by_enumeration() -> None:
    net = np.array([3, 1, -1, 2, 0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    sums = np.abs(net[:4]) @ signs
    expected = 2 * min((sums >= net.sum()).mean(), (sums <= net.sum()).mean())
    assert exact_p(net) == pytest.approx(expected)
    assert exact_p(np.zeros(5, dtype=int)) == 1


def test_problems_that_every_prompt_fixes_count_as_problems() -> None:
    """Four problems that all of ten prompts fix are four signs, p = 0.125, and not forty."""
    changes = np.zeros((500, 10))
    changes[:4] = 1
    result = gain(changes)
    assert result.p == pytest.approx(0.125)
    assert result.low < 0


def test_widened_adds_distances_in_quadrature() -> None:
    estimate = Gain(0.02, -0.01, 0.06, 0.3, 2.0)
    assert widened(estimate, np.empty(0)) == estimate
    unmoved = widened(estimate, np.zeros(100))
    assert (unmoved.low, unmoved.high) == pytest.approx((-0.01, 0.06))
    low, high = percentile_interval(shifts := np.linspace(-0.04, 0.03, 1000))
    wide = widened(estimate, shifts)
    assert (wide.value, wide.p, wide.df) == (0.02, 0.3, 2.0)
    assert wide.low == pytest.approx(0.02 - np.hypot(0.03, -low))
    assert wide.high == pytest.approx(0.02 + np.hypot(0.04, high))
    assert widened(estimate, np.full(100, 0.01)).low == pytest.approx(estimate.low), "what only gains lowers no bound"
