"""The regression against planted coefficients, statsmodels itself, and data without a finite fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from dpc_interp import DPCInterpError, trigger_regression
from dpc_interp.evaluation.regression import _separated

TERMS = ["late_share", "length", "nll"]
FULL = "late_share + length + nll"


def drawn(n: int, coefficients: tuple[float, float, float], seed: int = 0, prompt: str = "seed0") -> pd.DataFrame:
    """Length goes with late_share; log odds are -0.5 + the coefficients times standardised terms."""
    rng = np.random.default_rng(seed)
    late = rng.normal(size=n)
    length, nll = 0.6 * late + 0.8 * rng.normal(size=n), rng.normal(size=n)
    z = np.stack([late, length, nll], axis=1)
    z = (z - z.mean(0)) / z.std(0)
    wrong = rng.random(n) < 1 / (1 + np.exp(0.5 - z @ coefficients))
    frame = pd.DataFrame(z * [0.1, 8, 0.02] + [0.5, 30, 0.1], columns=TERMS)
    return frame.assign(instance=[f"story-{i}" for i in range(n)], task="story", prompt=prompt, correct=~wrong)


def full(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["model"] == FULL].set_index("term")


def test_planted_coefficients_are_found() -> None:
    planted = (0.9, -0.5, 0.0)
    found = full(trigger_regression(drawn(8000, planted)))
    for term, value in zip(TERMS, planted, strict=True):
        assert found.loc[term, "coefficient"] == pytest.approx(value, abs=0.1)
        assert found.loc[term, "low"] < value < found.loc[term, "high"]
    assert found.loc["late_share", "p"] < 1e-20
    assert found.loc["nll", "p"] > 0.01


def test_a_proxy_is_told_from_what_it_stands_for() -> None:
    """Only length makes answers wrong: late_share tells alone, and nothing with length beside it."""
    found = trigger_regression(drawn(2000, (0.0, 1.0, 0.0))).set_index(["model", "term"])
    assert found.loc[("late_share", "late_share"), "low"] > 0.3
    assert found.loc[("late_share + nll", "late_share"), "low"] > 0.3
    for model in ("late_share + length", FULL):
        row = found.loc[(model, "late_share")]
        assert row["low"] < 0 < row["high"]
    assert len(found) == 1 + 2 + 2 + 3


def test_agrees_with_statsmodels_on_fixed_data() -> None:
    stats = drawn(150, (0.7, 0.2, -0.3), seed=3)
    z = (stats[TERMS] - stats[TERMS].mean()) / stats[TERMS].std(ddof=0)
    fit = sm.Logit((~stats["correct"]).astype(float), sm.add_constant(z)).fit(disp=False)
    found = full(trigger_regression(stats.drop(columns="prompt")))
    np.testing.assert_allclose(found["coefficient"], fit.params[TERMS], rtol=1e-6)
    np.testing.assert_allclose(found["p"], fit.pvalues[TERMS], rtol=1e-6)
    np.testing.assert_allclose(found[["low", "high"]], fit.conf_int().loc[TERMS], rtol=1e-6)
    assert found[["n", "n_wrong", "n_prompts"]].to_numpy().tolist() == [[150, int((~stats["correct"]).sum()), 1]] * 3
    assert set(found["estimator"]) == {"maximum likelihood"}
    assert set(found["reason"]) == {""}


def test_problems_shared_by_prompts_are_clusters() -> None:
    """The same answers under a second prompt add nothing: one prompt's interval, where independent rows would give a
    narrower one."""
    stats = drawn(300, (0.7, 0.2, -0.3), seed=4)
    scaled = stats.assign(prompt="seed1", nll=10 * stats["nll"])
    once, twice = full(trigger_regression(stats)), full(trigger_regression(pd.concat([stats, scaled])))
    np.testing.assert_allclose(twice["coefficient"], once["coefficient"], rtol=1e-5)
    np.testing.assert_allclose(twice["high"] - twice["low"], once["high"] - once["low"], rtol=0.15)
    assert twice[["n", "n_prompts"]].to_numpy().tolist() == [[600, 2]] * 3


def test_separated_outcomes_have_a_finite_penalised_fit() -> None:
    stats = drawn(60, (0.0, 0.0, 0.0), seed=5)
    stats["correct"] = stats["late_share"] < stats["late_share"].median()
    found = full(trigger_regression(stats))
    assert set(found["estimator"]) == {"log-F(1,1)"}
    assert set(found["reason"]) == {"outcomes are separated"}
    assert np.isfinite(found[["coefficient", "low", "high", "p"]]).all(axis=None)
    assert found["coefficient"].idxmax() == "late_share"
    assert found.loc["late_share", "coefficient"] > 3
    again = full(trigger_regression(pd.concat([stats, stats.assign(prompt="seed1")])))
    width, both = (frame.loc["late_share", "high"] - frame.loc["late_share", "low"] for frame in (found, again))
    assert both == pytest.approx(width, rel=0.1), "problems count once"


@pytest.mark.parametrize(
    ("wrong", "separated"),
    [([0, 0, 0, 1, 1, 1], True), ([0, 0, 1, 0, 1, 1], False), ([1, 1, 1, 0, 0, 0], True), ([0, 1, 0, 0, 1, 0], False)],
)
def test_separation_by_hand(wrong: list[int], separated: bool) -> None:
    design = np.column_stack([np.arange(6.0) - 2.5, np.ones(6)])
    assert _separated(design, np.array(wrong, dtype=bool)) == separated


def test_touching_outcomes_are_separated_too() -> None:
    """Both outcomes at one value of an indicator, only one at the other: no finite fit either."""
    design = np.column_stack([[0.0, 0.0, 0.0, 1.0, 1.0], np.ones(5)])
    assert _separated(design, np.array([False, True, False, True, True]))


def test_what_cannot_be_fitted_is_nan_with_a_reason() -> None:
    stats = drawn(80, (0.5, 0.0, 0.0), seed=6)
    for changed, model, reason in (
        (stats.assign(correct=True), "late_share", "fewer than 5 instances of a prompt are wrong or right"),
        (stats.assign(length=0.1), "late_share + length", "a term is constant within a prompt"),
        (stats.assign(nll=2 * stats["length"] + 1), FULL, "terms are collinear"),
    ):
        found = trigger_regression(changed)
        rows = found[found["model"] == model]
        assert set(rows["reason"]) == {reason}
        assert rows[["coefficient", "low", "high", "p"]].isna().all(axis=None)
    assert trigger_regression(stats.assign(length=30)).iloc[0]["reason"] == "", "models without the term are fitted"


def test_what_cannot_be_read_is_refused() -> None:
    stats = drawn(40, (0.5, 0.0, 0.0))
    for changed, message in (
        (stats.drop(columns="nll"), "lack the column 'nll'"),
        (stats.assign(nll=np.nan), "'nll' holds values that are not finite"),
        (pd.concat([stats, stats]), "an instance comes twice"),
        (pd.concat([stats, stats.assign(task="rule")]), "of several"),
    ):
        with pytest.raises(DPCInterpError, match=message):
            trigger_regression(changed)
