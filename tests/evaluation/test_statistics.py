"""Intervals and paired tests against the libraries they come from, and a summary worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp.evaluation.statistics import bootstrap_mean, exact_mcnemar, ranking, summarise, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (263, 500)])
def test_wilson(successes: int, n: int) -> None:
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(("fixed", "broken"), [(9, 2), (2, 9), (5, 5), (1, 0), (0, 0), (40, 15)])
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(fixed: int, broken: int) -> None:
    before = np.array([False] * fixed + [True] * broken + [True] * 6 + [False] * 4)
    after = np.array([True] * fixed + [False] * broken + [True] * 6 + [False] * 4)
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert exact_mcnemar(before, after) == pytest.approx(min(1.0, expected))


def test_ranking() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(120) < 0.4
    values = labels + rng.normal(size=120).round(1)  # with ties
    found = ranking(labels, values, seed=1)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, values))
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, values))
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"]
    assert found["average_precision_low"] < found["average_precision"] < found["average_precision_high"]
    assert (found["n"], found["base_rate"]) == (120, pytest.approx(labels.mean()))
    assert found == ranking(labels, values, seed=1)
    nothing = ranking(np.zeros(5, dtype=bool), np.arange(5.0))
    assert nothing["n"] == 5
    assert np.isnan([value for name, value in nothing.items() if name not in ("n", "base_rate")]).all()


def test_bootstrap_resamples_whole_clusters() -> None:
    """Ten copies of each problem tell no more than one."""
    rng = np.random.default_rng(1)
    once = rng.random(60)
    low, high = bootstrap_mean(once, np.arange(60), seed=2)
    again = bootstrap_mean(np.repeat(once, 10), np.repeat(np.arange(60), 10), seed=2)
    assert again == pytest.approx((low, high))
    assert high - low == pytest.approx(2 * 1.96 * once.std() / np.sqrt(60), rel=0.15)


def test_bootstrap_covers_about_95_percent() -> None:
    """Problems of two prompts each, alike within a problem: 200 simulated tables of 50 problems."""
    rng = np.random.default_rng(3)
    problems = np.repeat(np.arange(50), 2)
    covered = []
    for _ in range(200):
        values = 1.5 + np.repeat(rng.normal(size=50), 2) + 0.3 * rng.normal(size=100)
        low, high = bootstrap_mean(values, problems)
        covered.append(low < 1.5 < high)
    assert 0.89 <= np.mean(covered) <= 0.99


def table(prompt: str, right: dict[str, str], fired: dict[str, str] | None = None) -> pd.DataFrame:
    """One letter an instance: 1 right, 0 wrong. Problem k has k + 1 generated tokens."""
    rows = []
    for method, outcomes in right.items():
        marks = (fired or {}).get(method, "0" * len(outcomes))
        rows += [
            (prompt, method, f"story-{k}", outcome == "1", mark == "1", k + 1)
            for k, (outcome, mark) in enumerate(zip(outcomes, marks, strict=True))
        ]
    return pd.DataFrame(rows, columns=["prompt", "method", "instance", "correct", "fired", "n_tokens"])


def test_summary_by_hand() -> None:
    """Of ten problems dpc fixes two (5, 6), breaks one (0): from 5 right to 6."""
    frame = table("seed0", {"pt": "1111100000", "dpc": "0111111000"}, {"dpc": "1000011100"})
    summary = summarise(frame).set_index("method")
    pt, dpc = summary.loc["pt"], summary.loc["dpc"]
    assert dpc[["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong"]].tolist() == [10, 1, 2, 1, 4, 3]
    assert dpc[["accuracy", "difference", "firing_rate", "tokens"]].tolist() == pytest.approx([0.6, 0.1, 0.4, 5.5])
    assert (dpc["low"], dpc["high"]) == wilson(6, 10)
    assert dpc["p_mcnemar"] == 1.0  # 2 against 1
    assert dpc["difference_low"] < 0.1 < dpc["difference_high"]
    assert pt[["accuracy", "difference", "difference_low", "difference_high", "p_mcnemar"]].tolist() == [
        0.5,
        0,
        0,
        0,
        1,
    ]


def test_summary_pairs_by_prompt_and_problem_whatever_the_order() -> None:
    frame = pd.concat(
        [
            table("seed0", {"pt": "1100", "dpc": "1110"}),
            table("seed1", {"pt": "0011", "dpc": "0111"}),
        ]
    )
    dpc = summarise(frame).set_index("method").loc["dpc"]
    assert dpc[["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong"]].tolist() == [8, 2, 2, 0, 4, 2]
    assert np.isnan(dpc["p_mcnemar"]), "pairs of the same problem are not independent"
    shuffled = summarise(frame.sample(frac=1, random_state=0)).set_index("method").loc["dpc"]
    counts = ["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong", "accuracy", "difference"]
    assert shuffled[counts].tolist() == dpc[counts].tolist()
    assert (shuffled["low"], shuffled["high"]) == (dpc["low"], dpc["high"])
