"""The bootstrap: estimates equal those of the usual libraries, intervals cover the truth at about their level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.stats.bootstrap import mean_interval, percentile_interval, ranking_interval, resamples


def test_resamples_draw_n_instances_and_are_seeded() -> None:
    counts = resamples(30, seed=1)
    assert (counts.sum(axis=1) == 30).all()
    np.testing.assert_array_equal(counts, resamples(30, seed=1))
    assert not np.array_equal(counts, resamples(30, seed=2))


def test_percentile_interval_by_hand() -> None:
    """Of the values 0 to 1000 the bounds are 25 and 975; NaN draws are left out."""
    draws = np.arange(1001.0)[::-1, None] * [1, 1, np.nan]
    draws = np.concatenate([draws, np.full((5, 3), np.nan)])
    low, high = percentile_interval(draws)
    np.testing.assert_allclose(low, [25, 25, np.nan])
    np.testing.assert_allclose(high, [975, 975, np.nan])


def test_mean_leaves_out_missing_values() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    mean, low, high = mean_interval(values)
    np.testing.assert_array_equal(mean, [2.0, 5.0, np.nan])
    np.testing.assert_array_equal(low, [1.0, 5.0, np.nan])
    np.testing.assert_array_equal(high, [3.0, 5.0, np.nan])


def test_the_mean_interval_covers_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    _, low, high = mean_interval(rng.normal(size=(60, 2000)))
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=0.03)


def test_rankings_equal_those_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(150) < 0.3
    for scores in (rng.normal(size=150) + positive, rng.integers(0, 4, 150) + positive.astype(float), np.zeros(150)):
        value, low, high = ranking_interval(scores, positive)
        expected = [roc_auc_score(positive, scores), average_precision_score(positive, scores)]
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        assert ((low <= value) & (value <= high)).all()


def test_the_ranking_interval_does_not_depend_on_the_order_of_instances() -> None:
    rng = np.random.default_rng(4)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.4
    order = rng.permutation(50)
    np.testing.assert_array_equal(
        ranking_interval(scores, positive, seed=3), ranking_interval(scores[order], positive[order], seed=3)
    )


def test_a_perfect_ranking_has_an_interval_of_no_width() -> None:
    positive = np.arange(20) < 5
    value, low, high = ranking_interval(positive.astype(float), positive)
    assert value.tolist() == low.tolist() == high.tolist() == [1.0, 1.0]


def test_the_auroc_interval_is_near_the_normal_one() -> None:
    """Hanley and McNeil's variance for scores unrelated to the outcome: (n + m + 1) / (12 n m)."""
    rng = np.random.default_rng(3)
    positive = np.arange(400) < 150
    _, low, high = ranking_interval(rng.normal(size=400), positive)
    width = 2 * 1.96 * np.sqrt(401 / (12 * 150 * 250))
    assert high[0] - low[0] == pytest.approx(width, rel=0.12)


def test_intervals_equal_those_of_scipys_bootstrap() -> None:
    """Up to the random draw: within a tenth of the width for the mean, and 0.15 of it for AUROC."""
    rng = np.random.default_rng(0)
    wrong = rng.random(60) < 0.4
    scores = rng.integers(0, 9, 60) + 2.0 * wrong
    options = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(1)}
    expected = bootstrap((scores,), np.mean, **options).confidence_interval
    _, low, high = mean_interval(scores[:, None])
    assert [low[0], high[0]] == pytest.approx([expected.low, expected.high], abs=0.1 * (expected.high - expected.low))

    def auroc(wrong_scores: np.ndarray, right_scores: np.ndarray) -> float:
        return roc_auc_score(np.arange(60) < len(wrong_scores), np.concatenate([wrong_scores, right_scores]))

    options |= {"n_resamples": 500, "vectorized": False}
    expected = bootstrap((scores[wrong], scores[~wrong]), auroc, **options).confidence_interval
    _, low, high = ranking_interval(scores, wrong)
    assert [low[0], high[0]] == pytest.approx([expected.low, expected.high], abs=0.15 * (expected.high - expected.low))
