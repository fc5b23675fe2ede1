"""The bootstrap: estimates equal those of the usual libraries, intervals cover about what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.evaluation.intervals import hedges_g, mean_interval, ranking_interval, resamples


def test_resamples_draw_n_instances_and_are_seeded() -> None:
    counts = resamples(30, seed=1)
    assert (counts.sum(axis=1) == 30).all()
    np.testing.assert_array_equal(counts, resamples(30, seed=1))
    assert not np.array_equal(counts, resamples(30, seed=2))


def test_mean_leaves_out_what_is_not_known() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    mean, low, high = mean_interval(values)
    np.testing.assert_array_equal(mean, [2.0, 5.0, np.nan])
    np.testing.assert_array_equal(low, [1.0, 5.0, np.nan])
    np.testing.assert_array_equal(high, [3.0, 5.0, np.nan])


def test_the_mean_interval_covers_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    _, low, high = mean_interval(rng.normal(size=(60, 2000)))
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=0.03)


def test_hedges_g_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(1)
    wrong, right = 1e-5 * rng.normal(5, 1, (12, 3)), 1e-5 * rng.normal(4, 1, (20, 3))
    pooled = np.sqrt((11 * wrong.var(axis=0, ddof=1) + 19 * right.var(axis=0, ddof=1)) / 30)
    expected = (1 - 3 / (4 * 30 - 1)) * (wrong.mean(axis=0) - right.mean(axis=0)) / pooled
    effect, low, high = hedges_g(wrong, right)
    np.testing.assert_allclose(effect, expected)
    assert ((low < effect) & (effect < high)).all()
    assert np.isnan(hedges_g(wrong[:1], right)).all()


def test_hedges_g_without_variation_is_not_known() -> None:
    assert np.isnan(hedges_g(np.ones((4, 1)), np.zeros((4, 1)))).all()


def test_areas_equal_those_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(150) < 0.3
    for scores in (rng.normal(size=150) + positive, rng.integers(0, 4, 150) + positive.astype(float), np.zeros(150)):
        value, low, high = ranking_interval(scores, positive)
        expected = [roc_auc_score(positive, scores), average_precision_score(positive, scores)]
        np.testing.assert_allclose(value, expected)
        assert ((low <= value) & (value <= high)).all()


def test_a_perfect_ranking_has_no_width() -> None:
    positive = np.arange(20) < 5
    value, low, high = ranking_interval(positive.astype(float), positive)
    assert value.tolist() == low.tolist() == high.tolist() == [1.0, 1.0]


def test_the_auroc_interval_is_near_the_normal_one() -> None:
    """Hanley and McNeil's variance for scores that tell nothing: (n + m + 1) / (12 n m)."""
    rng = np.random.default_rng(3)
    positive = np.arange(400) < 150
    _, low, high = ranking_interval(rng.normal(size=400), positive)
    width = 2 * 1.96 * np.sqrt(401 / (12 * 150 * 250))
    assert high[0] - low[0] == pytest.approx(width, rel=0.12)
