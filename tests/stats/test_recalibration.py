"""Redrawn thresholds are those that `calibrate_trigger` chooses on the redrawn instances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp import calibrate_trigger
from dpc_interp.analysis.options import Criterion
from dpc_interp.errors import OneOutcomeError
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.recalibration import redrawn_thresholds
from dpc_interp.stats.youden import youden

N = 40


@pytest.mark.parametrize("criterion", ["youden", "accuracy"])
@pytest.mark.parametrize("signal", [0.0, 1.5, -1.5])
def test_each_threshold_is_that_of_the_redrawn_instances(criterion: Criterion, signal: float) -> None:
    """With ties, since values are rounded; with a signal below 0 the best is never to fire."""
    rng = np.random.default_rng(3)
    wrong = rng.random(N) < 0.3
    values = np.round(rng.normal(size=N) + signal * wrong, 1)
    fixed = rng.random(N) < 0.5
    stats = pd.DataFrame({"late_share": values, "correct": ~wrong, "corrupted_correct": fixed})
    after, right = (stats[name].to_numpy(float) for name in ("corrupted_correct", "correct"))
    weights = resamples(N, seed=1, n_resamples=50)
    if criterion == "youden":
        thresholds = redrawn_thresholds(values, 1 - right, right, weights, normed=True)
    else:
        thresholds = redrawn_thresholds(values, after * (1 - right), (1 - after) * right, weights, normed=False)
    for threshold, counts in zip(thresholds, weights, strict=True):
        redrawn = stats.loc[stats.index.repeat(counts.astype(int))]
        rule = calibrate_trigger(redrawn, criterion)
        if criterion == "youden":  # of several thresholds with one J, rounding decides which `calibrate_trigger` takes
            drawn, outcomes = redrawn["late_share"].to_numpy(), ~redrawn["correct"].to_numpy(bool)
            assert youden(drawn, outcomes, threshold) == pytest.approx(rule.youden)
            assert threshold >= rule.threshold or threshold == pytest.approx(rule.threshold)
        else:
            assert (values[counts > 0] > threshold).tolist() == (values[counts > 0] > rule.threshold).tolist()


def test_without_both_outcomes_nothing_fires() -> None:
    """One of ten is wrong, and is not drawn; `calibrate_trigger` would refuse."""
    wrong = np.arange(10) == 0
    weights = np.where(wrong, 0.0, 1.0)[None]
    assert redrawn_thresholds(np.arange(10.0), wrong * 1.0, ~wrong * 1.0, weights, normed=True).tolist() == [np.inf]
    with pytest.raises(OneOutcomeError):
        calibrate_trigger(pd.DataFrame({"late_share": np.arange(9.0), "correct": True}))
