"""Triggers compared at one firing rate: which finds the wrong answers, and which those that corruption fixes.

METHOD 4 and 7.2. For each trigger with statistic s, and each prompt:

    c:   the cut at which a share `rate` of the validation instances fires
    w_i: 1 where s_i > c,  p where s_i = c,  0 where s_i < c
    accuracy = mean over i of pt_i + w_i (corrupted_i - pt_i)

p breaks ties at random, so that a coarse statistic fires as often as a fine one; what is reported is the expectation
over those draws. `random` is the statistic that is the same everywhere, `oracle` is 1 where PT was wrong. Cuts are of
validation instances alone; test instances are only counted. An instance without a rationale never fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpc_interp.analysis.trigger import STATISTICS
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.effects import Array, Flags
from dpc_interp.evaluation.intervals import mean_interval, resamples
from dpc_interp.evaluation.methods import Results
from dpc_interp.evaluation.ranking import rank_by_problem

OUTCOMES = ("PT was wrong", "corruption fixes it")
REFERENCES = ("random", "oracle")


@dataclass(frozen=True)
class _Tested:
    """One task's problems (sorted) by prompts. `before`: pt was right; `after`: it is under corruption."""

    before: Flags
    after: Flags
    usable: Flags
    values: dict[str, Array]

    def outcome(self, name: str) -> Flags:
        """Where it holds."""
        return ~self.before if name == "PT was wrong" else ~self.before & self.after


@dataclass(frozen=True)
class _Fired:
    """A trigger at a rate: cut and tie share of each prompt, how likely each instance fires, why it cannot."""

    cuts: list[tuple[float, float]]
    weights: Array
    reason: str


def compare_triggers(
    results: Results | Sequence[Results],
    rates: Sequence[float] | None = None,
    *,
    triggers: Sequence[str] = STATISTICS,
    seed: int = 0,
) -> pd.DataFrame:
    """Every trigger at the same firing rate, against both outcomes.

    Args:
        results: of one task, one a prompt, on the same problems; evaluated with `always`, calibrated on validation.
        rates: shares of the validation instances that are to fire; None: of each prompt, as many as its rule fires on.
        triggers: columns of `trigger_statistics`; `random` and `oracle` are always added.
        seed: of the bootstrap over problems, with all prompts of a problem kept together.

    Returns:
        One row a rate, trigger and outcome ('PT was wrong', 'corruption fixes it'):
        task, trigger, outcome, n_prompts; split, n_calibration, rate (asked of validation), threshold, at_threshold
        (the share that fires of those at the threshold), both the mean over prompts; n (instances with a rationale),
        base_rate, firing_rate, hit_rate, precision; auroc and average_precision (see `rank_by_problem`); accuracy (of
        all n_problems x n_prompts: corrupted where fired, else pt), difference (to pt), above_random (to corrupting
        as many at random); reason (why values are NaN, or empty). Shares, not percent; `_low` and `_high`: 95%
        intervals, which hold the prompts as given.

        NaN: what rests on a threshold, where a statistic is constant on validation; rankings, where fewer than 5
        problems have, or lack, the outcome; all of a statistic that is not finite.

    Raises:
        DPCInterpError: several tasks, other problems or the same prompt twice, no `always`, no validation statistics,
            an unknown statistic, or a rate outside 0 to 1.
    """
    chosen = [results] if isinstance(results, Results) else list(results)
    _check(chosen, rates, triggers)
    names = [*triggers, *REFERENCES]
    tested = _tested(chosen, triggers)
    calibration = [_values(one.validation, triggers) for one in chosen]
    own = [float(one.rule.fires(one.validation).mean()) for one in chosen]
    targets = [own] if rates is None else [[float(rate)] * len(chosen) for rate in rates]
    draws = np.vstack([np.ones((1, len(tested.before))), resamples(len(tested.before), seed=seed)])

    ranked = {
        (name, outcome): rank_by_problem(tested.values[name], tested.outcome(outcome), tested.usable, draws)
        for name in names
        for outcome in OUTCOMES
    }
    fired = [
        {name: _fired(name, [c[name] for c in calibration], tested, target) for name in names} for target in targets
    ]
    gained = [_accuracies(at_rate, tested, seed) for at_rate in fired]
    rows = []
    for target, at_rate, accuracies in zip(targets, fired, gained, strict=True):
        for name, this in at_rate.items():
            for outcome in OUTCOMES:
                scores, why = ranked[name, outcome]
                rows.append(
                    {
                        "task": chosen[0].instances["task"].iloc[0],
                        "trigger": name,
                        "outcome": outcome,
                        "n_prompts": len(chosen),
                        "split": chosen[0].rule.split,
                        "n_calibration": sum(len(one.validation) for one in chosen),
                        "rate": float(np.mean(target)),
                        "threshold": float(np.mean([cut for cut, _ in this.cuts])),
                        "at_threshold": float(np.mean([share for _, share in this.cuts])),
                        **_hits(this.weights, tested.outcome(outcome), tested.usable),
                        **scores,
                        **accuracies[name],
                        "reason": "; ".join(dict.fromkeys(filter(None, (this.reason, why)))),
                    }
                )
    return pd.DataFrame(rows)


def _check(chosen: list[Results], rates: Sequence[float] | None, triggers: Sequence[str]) -> None:
    if not chosen:
        raise DPCInterpError("there are no results to compare triggers on; give at least one")
    tasks = {str(task) for one in chosen for task in one.instances["task"]}
    if len(tasks) > 1:
        raise DPCInterpError(f"results of several tasks ({', '.join(sorted(tasks))}); compare one task at a time")
    prompts = [str(one.instances["prompt"].iloc[0]) for one in chosen]
    if len(set(prompts)) < len(prompts):
        raise DPCInterpError(f"two results are of the same prompt ({', '.join(prompts)}); give each prompt once")
    for one, prompt in zip(chosen, prompts, strict=True):
        if "always" not in set(one.instances["method"]):
            raise DPCInterpError(f"{prompt} was evaluated without corruption everywhere; add 'always' to its methods")
        if one.validation.empty:
            raise DPCInterpError(f"{prompt} has no validation statistics for a threshold; evaluate it without rule=")
        for name in triggers:
            if name not in one.statistics or name not in one.validation:
                raise DPCInterpError(f"{prompt} lacks the statistic {name!r}; choose from {', '.join(STATISTICS)}")
        if set(one.instances["instance"]) != set(chosen[0].instances["instance"]):
            raise DPCInterpError(f"{prompt} and {prompts[0]} answered other problems; evaluate all on the same")
    for rate in rates or ():
        if not 0 <= rate <= 1:
            raise DPCInterpError(f"a firing rate is {rate}; give shares from 0 to 1")


def _values(stats: pd.DataFrame, triggers: Sequence[str]) -> pd.DataFrame:
    """The statistics of instances, and the two references beside them."""
    return stats[list(triggers)].astype(float).assign(random=0.0, oracle=(~stats["correct"].astype(bool)).astype(float))


def _tested(chosen: list[Results], triggers: Sequence[str]) -> _Tested:
    answers = [
        one.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first").astype(bool)
        for one in chosen
    ]
    order = answers[0].index
    values = [_values(one.statistics, triggers).set_axis(one.statistics["instance"]).reindex(order) for one in chosen]

    return _Tested(
        before=np.stack([frame["pt"].to_numpy(bool) for frame in answers], axis=1),
        after=np.stack([frame["always"].to_numpy(bool) for frame in answers], axis=1),
        usable=np.stack([order.isin(one.statistics["instance"]) for one in chosen], axis=1),
        values={
            name: np.stack([frame[name].to_numpy(float) for frame in values], axis=1)
            for name in (*triggers, *REFERENCES)
        },
    )


def _cut(values: Array, rate: float) -> tuple[float, float]:
    """The cut c and the share p such that the share `rate` of `values` fires, in expectation."""
    quota = rate * len(values)
    if rate in (0, 1):
        return (np.inf, 0.0) if rate == 0 else (-np.inf, 1.0)
    cut = np.sort(values)[::-1][int(np.ceil(quota - 1e-9)) - 1]  # a rate that is a count over n is that count
    share = (quota - (values > cut).sum()) / (values == cut).sum()
    return float(cut), float(np.clip(share, 0, 1))


def _fired(name: str, calibration: list[pd.Series], tested: _Tested, rates: list[float]) -> _Fired:
    values = tested.values[name]
    validation = [column.to_numpy(float) for column in calibration]
    reason = ""
    if not (np.isfinite(values[tested.usable]).all() and all(np.isfinite(known).all() for known in validation)):
        reason = "not finite"
    elif name != "random" and any(len(np.unique(known)) < 2 for known in validation):
        reason = "constant on validation"
    if reason:
        return _Fired([(np.nan, np.nan)] * len(rates), np.full(values.shape, np.nan), reason)
    cuts = [_cut(known, rate) for known, rate in zip(validation, rates, strict=True)]
    cut, share = (np.array(column) for column in zip(*cuts, strict=True))
    weights = np.where(values > cut, 1.0, np.where(values == cut, share, 0.0))
    return _Fired(cuts, np.where(tested.usable, weights, 0.0), reason)


def _hits(weights: Array, positive: Flags, usable: Flags) -> dict[str, float]:
    """Firing rate, hit rate and precision, in expectation, of the instances that can fire; NaN where there are none."""
    fires, hits = weights[usable].sum(), weights[usable & positive].sum()
    n_positive = int(positive[usable].sum())
    return {
        "n": int(usable.sum()),
        "base_rate": float(positive[usable].mean()),
        "firing_rate": float(fires / usable.sum()),
        "hit_rate": float(hits / n_positive) if n_positive else np.nan,
        "precision": float(hits / fires) if fires else np.nan,
    }


def _accuracies(fired: dict[str, _Fired], tested: _Tested, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy of each combination, its difference to pt and to as many at random, paired on the problems."""
    change = tested.after.astype(float) - tested.before
    weights = np.stack([this.weights for this in fired.values()])
    rates = weights.sum(1) / tested.usable.sum(0)  # realised: what firing more or less often does is no skill
    gains = (weights * change).mean(2).T
    at_random = (rates[:, None] * (change * tested.usable)).mean(2).T
    columns = {
        "accuracy": gains + tested.before.mean(1)[:, None],
        "difference": gains,
        "above_random": (gains - at_random).round(12) + 0.0,  # random itself: 0, of no sign
    }
    intervals = {name: mean_interval(column, seed=seed) for name, column in columns.items()}
    size = {"n_problems": len(gains)}
    return {
        trigger: size
        | {
            f"{name}{end}": float(bound[k])
            for name, bounds in intervals.items()
            for end, bound in zip(("", "_low", "_high"), bounds, strict=True)
        }
        for k, trigger in enumerate(fired)
    }
