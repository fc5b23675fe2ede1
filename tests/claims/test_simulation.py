"""The rule of the gains, simulated: at most 2.5% of experiments err on each side, and the paper's effect is found."""

from __future__ import annotations

import numpy as np
import pytest

from dpc_interp.claims.simulation import simulate_changes, simulate_verdicts

N = 100
ERROR = 3 * np.sqrt(0.025 * 0.975 / N)
"""Three standard errors of a rate of 2.5% in N experiments."""


def test_without_an_effect_both_verdicts_are_rare() -> None:
    frame = simulate_verdicts([0.001, 0.03], [3, 10], n=N)
    assert set(frame["truth"]) == {"no effect", "paper's effect"}
    rates = frame[frame["truth"] == "no effect"]
    assert len(rates) == 12
    assert rates[["holds", "fails"]].max(axis=None) <= 0.025 + ERROR
    pooled = rates[["holds", "fails"]].mean(axis=None)
    assert pooled <= 0.025, "over all kinds of experiment"


def test_ten_prompts_find_the_papers_effect() -> None:
    frame = simulate_verdicts([0.03, 0.1], [10], n=40)
    judged = frame[frame["truth"] == "paper's effect"]
    assert judged["holds"].min() >= 0.8
    assert judged["fails"].max() == 0


def test_simulated_changes_have_the_shares_that_are_stated() -> None:
    rng = np.random.default_rng(0)
    changes = simulate_changes(rng, 0.1, 10, true_gain=0.05, shared=0.5, n_problems=20_000)
    assert np.abs(changes).mean() == pytest.approx(0.1, abs=0.003)
    assert changes.mean() == pytest.approx(0.05, abs=0.003)
    same = simulate_changes(rng, 0.1, 3, shared=1.0)
    assert (same == same[:, :1]).all()
