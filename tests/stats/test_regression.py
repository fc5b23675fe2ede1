"""The regression against planted coefficients, statsmodels itself, and data without a finite fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from dpc_interp import DPCInterpError, trigger_regression
from dpc_interp.stats.regression import _are_separated

TERMS = ["late_share", "length", "nll"]
FULL = "late_share + length + nll"


def drawn(n: int, coefficients: tuple[float, float, float], seed: int = 0, prompt: str = "seed0") -> pd.DataFrame:
    """Instances whose length correlates with late_share; log odds: -0.5 + coefficients times standardised terms."""
    rng = np.random.default_rng(seed)
    late = rng.normal(size=n)
    length, nll = 0.6 * late + 0.8 * rng.normal(size=n), rng.normal(size=n)
    z = np.stack([late, length, nll], axis=1)
    z = (z - z.mean(0)) / z.std(0)
    wrong = rng.random(n) < 1 / (1 + np.exp(0.5 - z @ coefficients))
    frame = pd.DataFrame(z * [0.1, 8, 0.02] + [0.5, 30, 0.1], columns=TERMS)
    return frame.assign(instance=[f"story-{i}" for i in range(n)], task="story", prompt=prompt, correct=~wrong)


def full(fits: pd.DataFrame) -> pd.DataFrame:
    """The rows of the model with all terms."""
    return fits[fits["model"] == FULL].set_index("term")


def test_planted_coefficients_are_recovered() -> None:
    planted = (0.9, -0.5, 0.0)
    fits = full(trigger_regression(drawn(8000, planted)))
    for term, value in zip(TERMS, planted, strict=True):
        assert fits.loc[term, "coefficient"] == pytest.approx(value, abs=0.1)
        assert fits.loc[term, "low"] < value < fits.loc[term, "high"]
    assert fits.loc["late_share", "p"] < 1e-20
    assert fits.loc["nll", "p"] > 0.01


def test_a_proxy_is_separated_from_its_cause() -> None:
    """Only length makes answers wrong: late_share predicts them by itself, and adds nothing to length."""
    fits = trigger_regression(drawn(2000, (0.0, 1.0, 0.0))).set_index(["model", "term"])
    assert fits.loc[("late_share", "late_share"), "low"] > 0.3
    assert fits.loc[("late_share + nll", "late_share"), "low"] > 0.3
    for model in ("late_share + length", FULL):
        row = fits.loc[(model, "late_share")]
        assert row["low"] < 0 < row["high"]
    assert len(fits) == 1 + 2 + 2 + 3


def test_agrees_with_statsmodels_on_fixed_data() -> None:
    stats = drawn(150, (0.7, 0.2, -0.3), seed=3)
    z = (stats[TERMS] - stats[TERMS].mean()) / stats[TERMS].std(ddof=0)
    fit = sm.Logit((~stats["correct"]).astype(float), sm.add_constant(z)).fit(disp=False)
    fits = full(trigger_regression(stats.drop(columns="prompt")))
    np.testing.assert_allclose(fits["coefficient"], fit.params[TERMS], rtol=1e-6)
    np.testing.assert_allclose(fits["p"], fit.pvalues[TERMS], rtol=1e-6)
    np.testing.assert_allclose(fits[["low", "high"]], fit.conf_int().loc[TERMS], rtol=1e-6)
    assert fits[["n", "n_wrong", "n_prompts"]].to_numpy().tolist() == [[150, int((~stats["correct"]).sum()), 1]] * 3
    assert set(fits["estimator"]) == {"maximum likelihood"}
    assert set(fits["reason"]) == {""}


def test_problems_shared_by_prompts_are_clusters() -> None:
    """The same answers under a second prompt leave the interval as wide; independent rows would make it narrower."""
    stats = drawn(300, (0.7, 0.2, -0.3), seed=4)
    scaled = stats.assign(prompt="seed1", nll=10 * stats["nll"])
    once, twice = full(trigger_regression(stats)), full(trigger_regression(pd.concat([stats, scaled])))
    np.testing.assert_allclose(twice["coefficient"], once["coefficient"], rtol=1e-5)
    np.testing.assert_allclose(twice["high"] - twice["low"], once["high"] - once["low"], rtol=0.15)
    assert twice[["n", "n_prompts"]].to_numpy().tolist() == [[600, 2]] * 3


def test_separated_outcomes_have_a_finite_penalised_fit() -> None:
    stats = drawn(60, (0.0, 0.0, 0.0), seed=5)
    stats["correct"] = stats["late_share"] < stats["late_share"].median()
    fits = full(trigger_regression(stats))
    assert set(fits["estimator"]) == {"log-F(1,1)"}
    assert set(fits["reason"]) == {"outcomes are separated"}
    assert np.isfinite(fits[["coefficient", "low", "high", "p"]]).all(axis=None)
    assert fits["coefficient"].idxmax() == "late_share"
    assert fits.loc["late_share", "coefficient"] > 3
    again = full(trigger_regression(pd.concat([stats, stats.assign(prompt="seed1")])))
    width, both = (frame.loc["late_share", "high"] - frame.loc["late_share", "low"] for frame in (fits, again))
    assert both == pytest.approx(width, rel=0.1), "each problem has weight 1"


@pytest.mark.parametrize(
    ("wrong", "separated"),
    [([0, 0, 0, 1, 1, 1], True), ([0, 0, 1, 0, 1, 1], False), ([1, 1, 1, 0, 0, 0], True), ([0, 1, 0, 0, 1, 0], False)],
)
def test_separation_by_hand(wrong: list[int], separated: bool) -> None:
    design = np.column_stack([np.arange(6.0) - 2.5, np.ones(6)])
    assert _are_separated(design, np.array(wrong, dtype=bool)) == separated


def test_touching_outcomes_are_separated_too() -> None:
    """Both outcomes at one value of an indicator and only one at the other have no finite fit either."""
    design = np.column_stack([[0.0, 0.0, 0.0, 1.0, 1.0], np.ones(5)])
    assert _are_separated(design, np.array([False, True, False, True, True]))


def test_models_without_a_fit_are_nan_with_a_reason() -> None:
    stats = drawn(80, (0.5, 0.0, 0.0), seed=6)
    for changed, model, reason in (
        (stats.assign(correct=True), "late_share", "fewer than 5 instances of a prompt are wrong or right"),
        (stats.assign(length=0.1), "late_share + length", "a term is constant within a prompt"),
        (stats.assign(nll=2 * stats["length"] + 1), FULL, "terms are collinear"),
    ):
        fits = trigger_regression(changed)
        rows = fits[fits["model"] == model]
        assert set(rows["reason"]) == {reason}
        assert rows[["coefficient", "low", "high", "p"]].isna().all(axis=None)
    assert trigger_regression(stats.assign(length=30)).iloc[0]["reason"] == "", "models without that term are fitted"


def test_a_single_covariate_has_two_models() -> None:
    fits = trigger_regression(drawn(80, (0.5, 0.0, 0.0)), statistic="nll", covariates=["length"])
    assert [tuple(row) for row in fits[["model", "term"]].to_numpy()] == [
        ("nll", "nll"),
        ("nll + length", "nll"),
        ("nll + length", "length"),
    ]


def test_the_old_keyword_of_the_covariates_still_works() -> None:
    stats = drawn(80, (0.5, 0.0, 0.0))
    with pytest.warns(DeprecationWarning, match="beside= is deprecated .* use covariates="):
        old = trigger_regression(stats, beside=["nll"])  # type: ignore[call-arg]
    pd.testing.assert_frame_equal(old, trigger_regression(stats, covariates=["nll"]))


def test_invalid_statistics_raise_an_error() -> None:
    stats = drawn(40, (0.5, 0.0, 0.0))
    for changed, message in (
        (stats.drop(columns="nll"), "lack the column 'nll'"),
        (stats.assign(nll=np.nan), "'nll' holds values that are not finite"),
        (pd.concat([stats, stats]), "an instance has two rows"),
        (pd.concat([stats, stats.assign(task="rule")]), "not those of exactly one task"),
    ):
        with pytest.raises(DPCInterpError, match=message):
            trigger_regression(changed)
