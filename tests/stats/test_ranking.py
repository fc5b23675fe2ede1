"""AUROC and average precision of one prompt and over several, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.ranking import rank_by_problem, ranking

SCORES = ["auroc", "auroc_low", "auroc_high", "average_precision", "average_precision_low", "average_precision_high"]


def draws(n: int, seed: int = 0) -> np.ndarray:
    """The data itself, then resamples of the problems."""
    return np.vstack([np.ones(n), resamples(n, seed=seed, n_resamples=500)])


def test_one_prompt_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(120) < 0.4
    values = labels + rng.normal(size=120).round(1)  # with ties
    row = ranking(labels, values, seed=1)
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, values), rel=1e-12)
    assert row["average_precision"] == pytest.approx(average_precision_score(labels, values), rel=1e-12)
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert row["average_precision_low"] < row["average_precision"] < row["average_precision_high"]
    assert (row["n"], row["base_rate"]) == (120, pytest.approx(labels.mean()))
    assert row == ranking(labels, values, seed=1)


@pytest.mark.parametrize("label", [False, True])
def test_equal_labels_have_no_ranking(label: bool) -> None:
    row = ranking(np.full(5, label), np.arange(5.0))
    assert (row["n"], row["base_rate"]) == (5, label)
    assert np.isnan([row[name] for name in SCORES]).all()


def test_pairs_are_formed_within_a_prompt() -> None:
    """Each prompt orders its own pairs right 3 times of 4; across the prompts, the scales differ by a factor of 100.

    AUROC: (3 + 3) of (4 + 4) pairs. Average precision: each prompt's positives have precisions 1 and 2/3. Each
    row is repeated five times to have enough problems.
    """
    values = np.repeat([[4.0, 400.0], [3.0, 300.0], [2.0, 200.0], [1.0, 100.0]], 5, axis=0)
    positive = np.repeat([[True, True], [False, False], [True, True], [False, False]], 5, axis=0)
    row, reason = rank_by_problem(values, positive, np.ones_like(positive), draws(20))
    assert reason == ""
    assert row["auroc"] == pytest.approx(3 / 4)
    assert row["average_precision"] == pytest.approx((1 + 10 / 15) / 2)


def test_unusable_entries_are_left_out() -> None:
    rng = np.random.default_rng(1)
    values, positive, usable = rng.normal(size=(40, 1)), rng.random((40, 1)) < 0.5, rng.random((40, 1)) < 0.8
    values[~usable] = np.nan
    row, _ = rank_by_problem(values, positive, usable, draws(40))
    assert row["auroc"] == pytest.approx(roc_auc_score(positive[usable], values[usable]))
    assert row["average_precision"] == pytest.approx(average_precision_score(positive[usable], values[usable]))
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]


def test_a_second_prompt_with_the_same_answers_adds_no_certainty() -> None:
    """Problems are drawn with all their prompts, so the intervals stay as wide."""
    rng = np.random.default_rng(2)
    values, positive = rng.normal(size=(60, 1)), rng.random((60, 1)) < 0.5
    usable = np.ones_like(positive)
    one, _ = rank_by_problem(values, positive, usable, draws(60))
    two, _ = rank_by_problem(
        np.hstack([values, 9 * values]), np.hstack([positive] * 2), np.hstack([usable] * 2), draws(60)
    )
    assert [two[name] for name in SCORES] == pytest.approx([one[name] for name in SCORES])


@pytest.mark.parametrize(
    ("values", "n_positive", "reason"),
    [
        (np.full(20, np.inf), 10, "not finite"),
        (np.arange(20.0), 4, "fewer than 5 problems with or without the outcome"),
        (np.arange(20.0), 16, "fewer than 5 problems with or without the outcome"),
    ],
)
def test_undefined_scores_are_nan_with_a_reason(values: np.ndarray, n_positive: int, reason: str) -> None:
    positive = (np.arange(20) < n_positive)[:, None]
    row, given = rank_by_problem(values[:, None], positive, np.ones_like(positive), draws(20))
    assert given == reason
    assert list(row) == SCORES
    assert np.isnan(list(row.values())).all()
