"""Wrong against right answers: Hedges' g by its definition, Welch's test by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from dpc_interp.stats.contrast import hedges_g, outcome_effects
from dpc_interp.stats.paired import holm


def test_hedges_g_equals_its_definition() -> None:
    rng = np.random.default_rng(1)
    wrong, right = 1e-5 * rng.normal(5, 1, (12, 3)), 1e-5 * rng.normal(4, 1, (20, 3))
    pooled = np.sqrt((11 * wrong.var(axis=0, ddof=1) + 19 * right.var(axis=0, ddof=1)) / 30)
    expected = (1 - 3 / (4 * 30 - 1)) * (wrong.mean(axis=0) - right.mean(axis=0)) / pooled
    effect, low, high = hedges_g(wrong, right)
    np.testing.assert_allclose(effect, expected)
    assert ((low < effect) & (effect < high)).all()


def test_hedges_g_covers_the_true_effect() -> None:
    """1,000 columns of a true difference of half a standard deviation."""
    rng = np.random.default_rng(2)
    _, low, high = hedges_g(rng.normal(0.5, 1, (40, 1000)), rng.normal(0, 1, (60, 1000)))
    assert np.mean((low < 0.5) & (high > 0.5)) == pytest.approx(0.945, abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [(np.ones((4, 1)), np.zeros((4, 1))), (np.ones((1, 1)), np.arange(9.0)[:, None])],
    ids=["no variation", "one wrong answer"],
)
def test_hedges_g_is_nan_where_it_is_undefined(wrong: np.ndarray, right: np.ndarray) -> None:
    assert np.isnan(hedges_g(wrong, right)).all()


def test_effects_have_welchs_p_and_holms_correction() -> None:
    rng = np.random.default_rng(0)
    wrong, right = rng.normal(0.8, 1, (20, 3)), rng.normal(0, 1, (30, 3))
    wrong[:, 1], right[:, 1] = 1.0, 1.0  # a value that does not vary
    effects = outcome_effects(wrong, right)
    expected = [ttest_ind(wrong[:, k], right[:, k], equal_var=False).pvalue for k in (0, 2)]
    assert effects["p"][[0, 2]].tolist() == pytest.approx(expected)
    assert effects["p_holm"][[0, 2]].tolist() == pytest.approx(holm(np.array(expected)).tolist())
    assert effects.loc[1, ["effect", "p", "p_holm"]].isna().all()
    np.testing.assert_array_equal(effects["effect"], hedges_g(wrong, right)[0])
    np.testing.assert_allclose(effects[["wrong", "right"]], np.stack([wrong.mean(axis=0), right.mean(axis=0)], axis=1))


def test_effects_without_right_answers_have_counts_and_means_only() -> None:
    effects = outcome_effects(np.array([[1.0], [3.0]]), np.empty((0, 1)))
    assert effects[["n_wrong", "n_right", "wrong"]].to_numpy().tolist() == [[2, 0, 2.0]]
    assert effects[["right", "effect", "low", "high", "p", "p_holm"]].isna().all(axis=None)
