"""Adjusted differences equal those of statsmodels, with weights as with copies."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.api import OLS

from dpc_interp.stats.adjusted import weighted_adjusted_difference


def data(n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    covariates, strata = rng.normal(size=(n, 2)), rng.integers(1, 4, size=n).astype(float)
    positive = covariates[:, 0] + rng.normal(size=n) > 0
    values = 1e-5 * (0.5 * positive + covariates @ [1.0, -2.0] + strata + rng.normal(size=n))
    return values, positive, covariates, strata


def by_statsmodels(values: np.ndarray, positive: np.ndarray, covariates: np.ndarray, strata: np.ndarray) -> float:
    design = np.column_stack([positive, covariates, strata[:, None] == np.unique(strata)]).astype(float)
    return float(OLS(values, design).fit().params[0] / values.std())


def test_it_equals_least_squares() -> None:
    arguments = data()
    expected = by_statsmodels(*arguments)
    assert weighted_adjusted_difference(*arguments, np.ones((1, 80))) == pytest.approx([expected])


def test_a_weight_counts_as_copies() -> None:
    arguments = data()
    weights = np.random.default_rng(1).integers(0, 3, size=80)
    copies = [np.repeat(argument, weights, axis=0) for argument in arguments]
    result = weighted_adjusted_difference(*arguments, weights[None].astype(float))
    assert result == pytest.approx([by_statsmodels(*copies)])


def test_what_is_undefined_is_nan() -> None:
    values, positive, covariates, strata = data()
    ones = np.ones((1, 80))
    one_outcome = np.where(positive, 1.0, 0.0)[None]
    assert np.isnan(weighted_adjusted_difference(values, positive, covariates, strata, one_outcome)).all()
    assert np.isnan(weighted_adjusted_difference(np.ones(80), positive, covariates, strata, ones)).all()
    same = positive.astype(float)
    assert np.isnan(weighted_adjusted_difference(values, positive, covariates, same, ones)).all()
