"""Weighted statistics: a weight of k equals k copies, and each statistic equals that of its library."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.stats.contrast import hedges_g
from dpc_interp.stats.weighted import (
    ranking_sums,
    weighted_hedges_g,
    weighted_mean,
    weighted_ranking,
)

RNG = np.random.default_rng(0)
N = 60
FIRST = RNG.integers(0, 9, N).astype(float)
WRONG = RNG.random(N) < 0.4
SCORES = FIRST + 2 * WRONG
WEIGHTS = RNG.multinomial(N, np.full(N, 1 / N), size=8).astype(float)


def copies(weights: np.ndarray) -> np.ndarray:
    """Indices of the instances, each repeated by its weight."""
    return np.repeat(np.arange(N), weights.astype(int))


@pytest.mark.parametrize("row", range(8))
def test_a_weight_is_a_number_of_copies(row: int) -> None:
    i, weights = copies(WEIGHTS[row]), WEIGHTS[row : row + 1]
    assert weighted_mean(FIRST[:, None], weights)[0, 0] == pytest.approx(FIRST[i].mean())
    expected = [roc_auc_score(WRONG[i], SCORES[i]), average_precision_score(WRONG[i], SCORES[i])]
    assert weighted_ranking(SCORES, WRONG, weights)[0].tolist() == pytest.approx(expected, rel=1e-12)
    g = weighted_hedges_g(SCORES[WRONG, None], SCORES[~WRONG, None], weights[:, WRONG], weights[:, ~WRONG])
    wrong, right = SCORES[i][WRONG[i]], SCORES[i][~WRONG[i]]
    assert g[0, 0] == pytest.approx(hedges_g(wrong[:, None], right[:, None])[0][0])


def test_missing_values_are_left_out_of_their_column() -> None:
    values = np.array([[1.0, np.nan], [2.0, 6.0], [5.0, np.nan]])
    means = weighted_mean(values, np.array([[1.0, 1.0, 2.0], [2.0, 0.0, 0.0]]))
    np.testing.assert_allclose(means, [[13 / 4, 6.0], [1.0, np.nan]])


def test_ranking_sums_by_hand() -> None:
    """Scores 3+, 2-, 2+, 1+: one of the three pairs is right and one is a tie; the precisions are 1, 2/3 and 3/4."""
    sums = ranking_sums(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, True]), np.ones((1, 4)))
    np.testing.assert_allclose(sums, [[[1.5, 1 + 2 / 3 + 3 / 4]], [[3, 3]]])


def test_ranking_sums_of_weights_are_those_of_repeated_instances() -> None:
    rng = np.random.default_rng(5)
    values, positive = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4
    weights = rng.integers(0, 4, (6, 40)).astype(float)
    above, below = ranking_sums(values, positive, weights)
    for scores, counts in zip(above / below, weights.astype(int), strict=True):
        labels, repeated = np.repeat(positive, counts), np.repeat(values, counts)
        assert scores == pytest.approx([roc_auc_score(labels, repeated), average_precision_score(labels, repeated)])


def test_a_resample_without_an_outcome_has_no_value() -> None:
    right_only, wrong_only = np.where(WRONG, 0.0, 1.0)[None], np.where(WRONG, 1.0, 0.0)[None]
    assert np.isnan(weighted_ranking(SCORES, WRONG, right_only)).all()
    np.testing.assert_array_equal(weighted_ranking(SCORES, WRONG, wrong_only), [[np.nan, 1.0]])
    for weights in (right_only, wrong_only):
        g = weighted_hedges_g(SCORES[WRONG, None], SCORES[~WRONG, None], weights[:, WRONG], weights[:, ~WRONG])
        assert np.isnan(g).all()
