"""Thresholds and firing scores, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dpc_interp import Results
from dpc_interp.claims.firing import fire_at_rates, firing_scores, redrawn_gains, threshold_at_rate
from dpc_interp.stats.bootstrap import N_RESAMPLES

VALUES = np.array([0.1, 0.4, 0.4, 0.4, 0.9])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.0, (np.inf, 0.0)),
        (0.2, (0.9, 1.0)),
        (0.4, (0.4, 1 / 3)),  # two of five: 0.9, and one of the three at 0.4
        (0.8, (0.4, 1.0)),
        (0.9, (0.1, 0.5)),
        (1.0, (-np.inf, 1.0)),
    ],
)
def test_threshold_and_tie_share_by_hand(rate: float, expected: tuple[float, float]) -> None:
    assert threshold_at_rate(VALUES, rate) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 7, 49, 120])
def test_a_rate_of_k_of_n_fires_exactly_k_of_distinct_values(n: int) -> None:
    """Without tolerance rounding would move the threshold, for example at 3 * (1 / 3)."""
    values = np.random.default_rng(0).permutation(n).astype(float)
    for k in range(1, n):
        threshold, share = threshold_at_rate(values, k / n)
        assert threshold == n - k
        assert share == pytest.approx(1.0)


def test_weights_by_prompt_and_none_without_a_rationale() -> None:
    values = np.array([[1.0, 10.0], [0.4, 0.0], [2.0, 20.0]])
    usable = np.array([[True, True], [True, True], [False, True]])
    firing = fire_at_rates(values, usable, [VALUES, np.array([0.0, 20.0])], [0.4, 0.5])
    assert firing.reason == ""
    np.testing.assert_allclose(firing.thresholds, [(0.4, 1 / 3), (20.0, 1.0)])
    np.testing.assert_allclose(firing.weights, [[1, 0], [1 / 3, 0], [0, 1]])


def test_a_statistic_without_a_threshold_has_a_reason() -> None:
    usable = np.array([[True], [False]])
    values = np.array([[1.0], [np.nan]])
    assert fire_at_rates(values, usable, [VALUES], [0.4]).reason == "", "an unusable value may be missing"
    for bad, validation, reason in (
        (values[::-1], VALUES, "not finite"),
        (values, np.array([1.0, np.inf]), "not finite"),
        (values, np.array([2.0, 2.0]), "constant on validation"),
    ):
        firing = fire_at_rates(bad, usable, [validation], [0.4])
        assert firing.reason == reason
        assert np.isnan(firing.weights).all()
        assert np.isnan(firing.thresholds).all()
    random = fire_at_rates(np.zeros((2, 1)), usable, [np.zeros(4)], [0.3], constant=True)
    np.testing.assert_allclose(random.weights, [[0.3], [0.0]])


def test_scores_by_hand() -> None:
    """Usable: 4 of 5 instances, 2 positive; expected: 1.5 fire, 1 of them positive."""
    weights = np.array([[1.0], [0.0], [0.5], [0.0], [0.0]])
    positive = np.array([[True], [True], [False], [False], [True]])
    usable = np.array([[True], [True], [True], [True], [False]])
    assert firing_scores(weights, positive, usable) == pytest.approx(
        {"n": 4, "base_rate": 0.5, "firing_rate": 1.5 / 4, "hit_rate": 0.5, "precision": 1 / 1.5}
    )
    nothing = firing_scores(np.zeros((5, 1)), ~usable, usable)
    assert np.isnan(nothing["hit_rate"])
    assert np.isnan(nothing["precision"])


def test_redrawn_gains_are_around_the_gain(planted: Callable[..., Results]) -> None:
    results = [planted(seed, prompt=f"seed{seed}") for seed in range(2)]
    shifts = redrawn_gains(results)
    assert shifts.shape == (N_RESAMPLES,)
    assert shifts.min() < 0 < shifts.max()
    assert 0 < shifts.std() < 0.02
    few = [replace(result, validation=result.validation.head(15)) for result in results]
    assert redrawn_gains(few).min() < shifts.min(), "few problems move the threshold farther"

    # a threshold that no resample moves: the statistic is the outcome itself
    rule = replace(results[0].rule, statistic="perfect", threshold=0.5)
    change = results[0].instances.pivot(index="instance", columns="method", values="correct").astype(float)
    fires = results[0].statistics.set_index("instance")["perfect"].reindex(change.index).gt(0.5)
    gain = ((change["always"] - change["pt"]) * fires).sum() - (change["dpc"] - change["pt"]).sum()
    np.testing.assert_allclose(redrawn_gains([replace(results[0], rule=rule)]), gain / len(change))


def test_a_given_rule_or_one_without_answers_is_not_redrawn(planted: Callable[..., Results]) -> None:
    result = planted()
    assert redrawn_gains([replace(result, validation=result.validation.head(0))]).size == 0
    without = result.instances[result.instances["method"] != "always"]
    assert redrawn_gains([replace(result, instances=without)]).size == 0
