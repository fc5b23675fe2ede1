"""Youden's J by hand and by scikit-learn, and its p under chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from dpc_interp.stats.youden import largest_youden, youden, youden_p


def test_j_at_a_threshold_by_hand() -> None:
    """Above 0.5: two of three positives and one of two negatives."""
    values, positive = np.array([0.9, 0.8, 0.2, 0.7, 0.5]), np.array([True, True, True, False, False])
    assert youden(values, positive, 0.5) == pytest.approx(2 / 3 - 1 / 2)
    assert np.isnan(youden(values, np.ones(5, dtype=bool), 0.5))


@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_j_is_that_of_the_roc_curve(ties: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(60).round(1) if ties else rng.random(60)
    positive = rng.random((20, 60)) < 0.4
    expected = []
    for row in positive:
        false_alarm, hit, _ = roc_curve(row, values)
        expected.append((hit - false_alarm).max())
    assert largest_youden(values, positive) == pytest.approx(expected)


def test_p_is_small_for_a_trigger_and_uniform_for_none() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(100) < 0.3
    assert youden_p(rng.normal(size=100) + 2 * positive, positive) < 0.01
    by_chance = [youden_p(rng.normal(size=60), rng.random(60) < 0.3) for _ in range(60)]
    assert np.mean(np.array(by_chance) < 0.5) == pytest.approx(0.5, abs=0.2)
    assert youden_p(np.ones(60), np.arange(60) < 20) == 1, "a constant never fires better than chance"
