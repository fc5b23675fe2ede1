"""Where a trigger fires: at a given rate, or when it is calibrated again (docs/method.md, sections 4, 7.2 and 8.3).

At a rate:

c:   the threshold at which a share `rate` of the validation instances fires
w_i: 1 where s_i > c,  p where s_i = c,  0 where s_i < c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpc_interp.evaluation.evaluate import Results
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.recalibration import redrawn_thresholds
from dpc_interp.stats.weighted import Array, Flags


@dataclass(frozen=True)
class Firing:
    """Where a trigger fires at a rate.

    Attributes:
        thresholds: for each prompt the threshold c and the share p that fires of the instances at c.
        weights: w, the probability that an instance fires, [n_problems, n_prompts]; 0 without a rationale.
        reason: why the trigger has no threshold and all numbers are NaN, or empty.
    """

    thresholds: list[tuple[float, float]]
    weights: Array
    reason: str


def fire_at_rates(
    values: Array, usable: Flags, validation: Sequence[Array], rates: Sequence[float], *, constant: bool = False
) -> Firing:
    """Fire a trigger at the same rate on validation as requested, prompt by prompt.

    Args:
        values: the statistic on test problems, [n_problems, n_prompts].
        usable: whether the instance has a rationale, [n_problems, n_prompts]; only such instances fire.
        validation: for each prompt the statistic on validation problems, [n_validation].
        rates: for each prompt the share of the validation instances that fires.
        constant: whether the statistic is meant to be constant, as that of the random trigger.
    """
    reason = ""
    if not (np.isfinite(values[usable]).all() and all(np.isfinite(known).all() for known in validation)):
        reason = "not finite"
    elif not constant and any(len(np.unique(known)) < 2 for known in validation):
        reason = "constant on validation"
    if reason:
        return Firing([(np.nan, np.nan)] * len(rates), np.full(values.shape, np.nan), reason)
    thresholds = [threshold_at_rate(known, rate) for known, rate in zip(validation, rates, strict=True)]
    threshold, share = (np.array(column) for column in zip(*thresholds, strict=True))
    weights = np.where(values > threshold, 1.0, np.where(values == threshold, share, 0.0))
    return Firing(thresholds, np.where(usable, weights, 0.0), reason)


def threshold_at_rate(values: Array, rate: float) -> tuple[float, float]:
    """The threshold c and the share p such that the share `rate` of `values` fires, in expectation.

    Args:
        values: the statistic of the validation instances.
        rate: 0 to 1.
    """
    if rate in (0, 1):
        return (np.inf, 0.0) if rate == 0 else (-np.inf, 1.0)
    quota = rate * len(values)
    # the tolerance undoes rounding: a rate of k / n must fire exactly k of n instances
    threshold = np.sort(values)[::-1][int(np.ceil(quota - 1e-9)) - 1]
    share = (quota - (values > threshold).sum()) / (values == threshold).sum()
    return float(threshold), float(np.clip(share, 0, 1))


def redrawn_gains(results: Sequence[Results], *, seed: int = 0) -> Array:
    """Gains of `dpc` on the same test answers with the trigger calibrated on redrawn validation problems.

    All prompts see the same redrawn problems. The gain over `always` moves by the same amount, because no threshold
    changes that of `always`.

    Args:
        results: results of one task, one per prompt; only those that were calibrated and evaluated with `always` and
            `dpc` count.
        seed: seed of the resamples.

    Returns:
        What the redrawn gain is above the gain, the mean over prompts, [n_resamples]; empty where no prompt counts.
    """
    calibrated = [
        result
        for result in results
        if len(result.validation) and {"pt", "always", "dpc"} <= set(result.instances["method"])
    ]
    if not calibrated:
        return np.empty(0)
    problems = pd.Index(sorted(set().union(*(result.validation["instance"] for result in calibrated))))
    weights = resamples(len(problems), seed=seed)
    shifts = []
    for result in calibrated:
        stats, options = result.validation, result.options
        correct = stats["correct"].to_numpy(float)
        by_accuracy = "corrupted_correct" in stats
        after = stats["corrupted_correct"].to_numpy(float) if by_accuracy else 1 - correct
        thresholds = redrawn_thresholds(
            stats[result.rule.statistic].to_numpy(float),
            after * (1 - correct),
            (1 - after) * correct,
            weights[:, problems.get_indexer(stats["instance"])],
            normed=not by_accuracy,
        )
        answers = result.instances.pivot(index="instance", columns="method", values="correct").astype(float)
        change = (answers["always"] - answers["pt"])[result.statistics["instance"]].to_numpy()
        values = result.statistics[result.rule.statistic].to_numpy(float)
        fires = values > thresholds[:, None] + options.alpha_offset
        gain = (answers["dpc"] - answers["pt"]).sum()
        shifts.append((fires @ change - gain) / len(answers))
    return np.mean(shifts, axis=0)


def firing_scores(weights: Array, positive: Flags, usable: Flags) -> dict[str, float]:
    """Expected firing rate, hit rate and precision of a trigger.

    Args:
        weights: probability that an instance fires.
        positive: whether the outcome occurs.
        usable: whether the instance can fire. All three are [n_problems, n_prompts].

    Returns:
        n, base_rate, firing_rate, hit_rate, precision over the usable instances; NaN for a share of no instances.
    """
    fires, hits = weights[usable].sum(), weights[usable & positive].sum()
    n_positive = int(positive[usable].sum())
    return {
        "n": int(usable.sum()),
        "base_rate": float(positive[usable].mean()),
        "firing_rate": float(fires / usable.sum()),
        "hit_rate": float(hits / n_positive) if n_positive else np.nan,
        "precision": float(hits / fires) if fires else np.nan,
    }
