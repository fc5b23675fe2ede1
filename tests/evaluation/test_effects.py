"""Weighted statistics: a weight of k is k copies, and each equals its library's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, false_discovery_control, rankdata, spearmanr, ttest_ind
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.evaluation.effects import (
    weighted_hedges_g,
    weighted_mean,
    weighted_ranking,
    weighted_ranks,
    weighted_spearman,
)
from dpc_interp.evaluation.intervals import hedges_g, mean_interval, ranking_interval
from dpc_interp.evaluation.statistics import holm, outcome_effects

RNG = np.random.default_rng(0)
N = 60
FIRST, SECOND = RNG.integers(0, 9, N).astype(float), RNG.integers(0, 9, N).astype(float)
WRONG = RNG.random(N) < 0.4
SCORES = FIRST + 2 * WRONG
WEIGHTS = RNG.multinomial(N, np.full(N, 1 / N), size=8).astype(float)


def copies(weights: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(N), weights.astype(int))


@pytest.mark.parametrize("row", range(8))
def test_a_weight_is_a_number_of_copies(row: int) -> None:
    i, weights = copies(WEIGHTS[row]), WEIGHTS[row : row + 1]
    assert weighted_mean(FIRST[:, None], weights)[0, 0] == pytest.approx(FIRST[i].mean())
    assert weighted_spearman(FIRST, SECOND, weights)[0] == pytest.approx(spearmanr(FIRST[i], SECOND[i]).statistic)
    expected = [roc_auc_score(WRONG[i], SCORES[i]), average_precision_score(WRONG[i], SCORES[i])]
    assert weighted_ranking(SCORES, WRONG, weights)[0].tolist() == pytest.approx(expected)
    drawn = weights[0] > 0
    np.testing.assert_allclose(
        weighted_ranks(FIRST, weights)[0, drawn], [rankdata(FIRST[i])[i == k][0] for k in np.flatnonzero(drawn)]
    )
    g = weighted_hedges_g(SCORES[WRONG, None], SCORES[~WRONG, None], weights[:, WRONG], weights[:, ~WRONG])
    wrong, right = SCORES[i][WRONG[i]], SCORES[i][~WRONG[i]]
    assert g[0, 0] == pytest.approx(hedges_g(wrong[:, None], right[:, None])[0][0])


def test_a_resample_without_an_outcome_is_not_known() -> None:
    only = np.where(WRONG, 0.0, 1.0)[None]
    assert np.isnan(weighted_ranking(SCORES, WRONG, only)).any()
    assert np.isnan(weighted_hedges_g(SCORES[WRONG, None], SCORES[~WRONG, None], only[:, WRONG], only[:, ~WRONG])).all()


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    """Up to the draw: percentile intervals of the mean and of AUROC, within a tenth of their width."""
    options = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(1)}
    theirs = bootstrap((SCORES,), np.mean, **options).confidence_interval
    _, low, high = mean_interval(SCORES[:, None])
    assert [low[0], high[0]] == pytest.approx([theirs.low, theirs.high], abs=0.1 * (theirs.high - theirs.low))

    def auroc(wrong: np.ndarray, right: np.ndarray) -> float:
        return roc_auc_score(np.arange(N) < len(wrong), np.concatenate([wrong, right]))

    theirs = bootstrap(
        (SCORES[WRONG], SCORES[~WRONG]), auroc, vectorized=False, **options | {"n_resamples": 500}
    ).confidence_interval
    _, low, high = ranking_interval(SCORES, WRONG)
    assert [low[0], high[0]] == pytest.approx([theirs.low, theirs.high], abs=0.15 * (theirs.high - theirs.low))


def test_holm_by_hand() -> None:
    """Smallest first: 3 * 0.01, then 2 * 0.02, then 0.03, never below the one before."""
    found = holm(np.array([0.03, np.nan, 0.01, 0.02]))
    np.testing.assert_allclose(found, [0.04, np.nan, 0.03, 0.04])
    p = RNG.random(12) / 20
    assert (holm(p) >= false_discovery_control(p)).all(), "it is stricter than the false discovery rate"
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_effects_by_column_have_welchs_p_and_holms() -> None:
    wrong, right = RNG.normal(0.8, 1, (20, 3)), RNG.normal(0, 1, (30, 3))
    wrong[:, 1], right[:, 1] = 1.0, 1.0
    found = outcome_effects(wrong, right)
    expected = [ttest_ind(wrong[:, k], right[:, k], equal_var=False).pvalue for k in (0, 2)]
    assert found["p"][[0, 2]].tolist() == pytest.approx(expected)
    assert found["p_holm"][[0, 2]].tolist() == pytest.approx(holm(np.array(expected)).tolist())
    assert found.loc[1, ["effect", "p", "p_holm"]].isna().all()
    np.testing.assert_array_equal(found["effect"], hedges_g(wrong, right)[0])
