"""The rule of the gains, simulated: at most 2.5% of experiments err on each side, and the paper's effect is found."""

from __future__ import annotations

import numpy as np
import pytest

from dpc_interp.claims.simulation import simulate_changes, simulate_verdicts
from dpc_interp.claims.verdicts import CLAIMS, PAPER_GAIN
from dpc_interp.stats.changes import gain

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


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_gain_as_large_as_the_papers_is_rarely_called_little(sign: int) -> None:
    """The equivalence at its bound, where it errs most."""
    (claim,) = (claim for claim in CLAIMS if claim.name == "C5 little")
    rng, held = np.random.default_rng(0), 0
    for _ in range(N):
        estimate = gain(simulate_changes(rng, 0.03, 10, true_gain=sign * PAPER_GAIN, shared=0.2))
        held += claim.distances(estimate.low, estimate.high)[0] > 0
    assert held / N <= 0.025 + ERROR
    certain = gain(simulate_changes(rng, 0.003, 10))
    assert claim.distances(certain.low, certain.high)[0] > 0, "a method that changes next to nothing gains little"


def test_simulated_changes_have_the_shares_that_are_stated() -> None:
    rng = np.random.default_rng(0)
    changes = simulate_changes(rng, 0.1, 10, true_gain=0.05, shared=0.5, n_problems=20_000)
    assert np.abs(changes).mean() == pytest.approx(0.1, abs=0.003)
    assert changes.mean() == pytest.approx(0.05, abs=0.003)
    same = simulate_changes(rng, 0.1, 3, shared=1.0)
    assert (same == same[:, :1]).all()
