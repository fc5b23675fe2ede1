"""Triggers compared at the same firing rate: which finds wrong answers, and which finds those that corruption fixes.

See docs/method.md, sections 4 and 7.2. For each trigger and prompt, with the probabilities w_i that an instance fires
(`firing.py`):

    accuracy = mean over i of pt_i + w_i (corrupted_i - pt_i)

Ties at the threshold are broken at random, so that a coarse statistic fires as often as a fine one; the frame reports
expectations over these draws. `random` is a constant statistic, `oracle` is 1 where PT was wrong. Thresholds are chosen
on validation instances only. An instance without a rationale never fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from dpc_interp.analysis.options import Options
from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.claims.firing import Firing, fire_at_rates, firing_scores
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.evaluate import Results, check_distinct_prompts
from dpc_interp.stats.bootstrap import mean_interval, resamples
from dpc_interp.stats.ranking import rank_by_problem
from dpc_interp.stats.weighted import Array, Flags

OUTCOMES = ("PT was wrong", "corruption fixes it")
REFERENCES = ("random", "oracle")
"""Triggers that are always added: firing at random, and firing where PT was wrong."""


@dataclass(frozen=True)
class _Outcomes:
    """The test problems of one task (sorted) under each prompt; every array is [n_problems, n_prompts].

    Attributes:
        pt_correct: whether prompt tuning is correct.
        corrupted_correct: whether the answer under corruption is correct.
        usable: whether there is a rationale, so that the trigger can fire.
        values: statistic -> its values.
    """

    pt_correct: Flags
    corrupted_correct: Flags
    usable: Flags
    values: dict[str, Array]

    def labels(self, outcome: str) -> Flags:
        """Whether the outcome, one of `OUTCOMES`, occurs."""
        return ~self.pt_correct if outcome == "PT was wrong" else ~self.pt_correct & self.corrupted_correct


def compare_triggers(
    results: Results | Sequence[Results],
    rates: Sequence[float] | None = None,
    *,
    triggers: Sequence[str] = tuple(TRIGGER_STATISTICS),
    seed: int = Options.seed,
) -> pd.DataFrame:
    """Compare triggers at the same firing rate, against both outcomes.

    Args:
        results: results of one task, one per prompt, on the same problems; evaluated with `always` and calibrated on
            validation problems.
        rates: shares of the validation instances that fire; None: for each prompt, the share of them that PT answers
            wrongly, so that a perfect trigger fires on the wrong ones; 0 or 1 where all are right or wrong. (A
            calibrated rule often fires on next to none, where nothing can be compared.)
        triggers: columns of `trigger_statistics`; `random` and `oracle` are always added.
        seed: seed of the bootstrap, which resamples problems with all their prompts.

    Returns:
        One row per rate, trigger and outcome ('PT was wrong', 'corruption fixes it').

        - task, trigger, outcome, n_prompts.
        - split, n_calibration, rate (requested, of the validation instances), threshold and at_threshold (the share
          that fires of the instances at the threshold), both as means over prompts.
        - n (instances with a rationale), base_rate, firing_rate, hit_rate, precision.
        - auroc and average_precision, see `rank_by_problem`.
        - accuracy (over all n_problems x n_prompts: of the corrupted answer where the trigger fires, else of pt),
          difference (to pt), above_random (to corrupting as many instances at random).
        - reason: why values are NaN, or empty.

        Shares are from 0 to 1. `_low` and `_high` bound 95% intervals, for these prompts. NaN: whatever depends on a
        threshold, where the statistic is constant on validation; rankings, where fewer than 5 problems have, or lack,
        the outcome; everything about a statistic that is not finite.

    Raises:
        DPCInterpError: several tasks, different problems, the same prompt twice, no `always`, no validation statistics,
            an unknown statistic, or a rate outside 0 to 1.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> test, validation = (dpc.load_problems("story", split, n=12) for split in ("test", "validation"))
        >>> results = dpc.evaluate(model, test, prompt, ["always"], validation=validation, progress=False)
        >>> frame = dpc.compare_triggers(results, rates=[0.5], triggers=["late_share"])
        >>> frame["trigger"].unique().tolist()
        ['late_share', 'random', 'oracle']
    """
    by_prompt = [results] if isinstance(results, Results) else list(results)
    _check_results(by_prompt, rates, triggers)
    outcomes = _collect_outcomes(by_prompt, triggers)
    validation = [_with_references(result.validation, triggers) for result in by_prompt]
    error_rates = [float(frame["oracle"].mean()) for frame in validation]
    targets = [error_rates] if rates is None else [[float(rate)] * len(by_prompt) for rate in rates]
    rankings = _rank(outcomes, seed)
    rows = []
    for target in targets:
        firings = {
            name: fire_at_rates(
                values,
                outcomes.usable,
                [frame[name].to_numpy(float) for frame in validation],
                target,
                constant=name == "random",
            )
            for name, values in outcomes.values.items()
        }
        accuracies = _accuracies(firings, outcomes, seed)
        for (name, firing), outcome in product(firings.items(), OUTCOMES):
            scores, ranking_reason = rankings[name, outcome]
            rows.append(
                {
                    "task": by_prompt[0].task,
                    "trigger": name,
                    "outcome": outcome,
                    "n_prompts": len(by_prompt),
                    "split": by_prompt[0].rule.split,
                    "n_calibration": sum(len(result.validation) for result in by_prompt),
                    "rate": float(np.mean(target)),
                    "threshold": float(np.mean([threshold for threshold, _ in firing.thresholds])),
                    "at_threshold": float(np.mean([share for _, share in firing.thresholds])),
                    **firing_scores(firing.weights, outcomes.labels(outcome), outcomes.usable),
                    **scores,
                    **accuracies[name],
                    "reason": "; ".join(dict.fromkeys(filter(None, (firing.reason, ranking_reason)))),
                }
            )
    return pd.DataFrame(rows)


def _check_results(by_prompt: list[Results], rates: Sequence[float] | None, triggers: Sequence[str]) -> None:
    if not by_prompt:
        raise DPCInterpError("there are no results to compare triggers on; give at least one")
    tasks = {result.task for result in by_prompt}
    if len(tasks) > 1:
        raise DPCInterpError(f"results of several tasks ({', '.join(sorted(tasks))}); compare one task at a time")
    check_distinct_prompts(by_prompt)
    for result in by_prompt:
        prompt = result.prompt
        if "always" not in set(result.instances["method"]):
            raise DPCInterpError(f"{prompt} was evaluated without the method 'always'; add it to its methods")
        if result.validation.empty:
            raise DPCInterpError(f"{prompt} has no validation statistics for a threshold; evaluate it without rule=")
        for name in triggers:
            if name not in result.statistics or name not in result.validation:
                raise DPCInterpError(
                    f"{prompt} lacks the statistic {name!r}; choose from {', '.join(TRIGGER_STATISTICS)}"
                )
        if set(result.instances["instance"]) != set(by_prompt[0].instances["instance"]):
            raise DPCInterpError(
                f"{prompt} and {by_prompt[0].prompt} answered different problems; "
                "evaluate all prompts on the same problems"
            )
    for rate in rates or ():
        if not 0 <= rate <= 1:
            raise DPCInterpError(f"a firing rate is {rate}; give shares from 0 to 1")


def _with_references(stats: pd.DataFrame, triggers: Sequence[str]) -> pd.DataFrame:
    """The statistics of instances with those of the two references."""
    return stats[list(triggers)].astype(float).assign(random=0.0, oracle=(~stats["correct"].astype(bool)).astype(float))


def _collect_outcomes(by_prompt: list[Results], triggers: Sequence[str]) -> _Outcomes:
    answers = [
        result.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first").astype(bool)
        for result in by_prompt
    ]
    problems = answers[0].index
    values = [
        _with_references(result.statistics, triggers).set_axis(result.statistics["instance"]).reindex(problems)
        for result in by_prompt
    ]
    return _Outcomes(
        pt_correct=np.stack([frame["pt"].to_numpy(bool) for frame in answers], axis=1),
        corrupted_correct=np.stack([frame["always"].to_numpy(bool) for frame in answers], axis=1),
        usable=np.stack([problems.isin(result.statistics["instance"]) for result in by_prompt], axis=1),
        values={
            name: np.stack([frame[name].to_numpy(float) for frame in values], axis=1)
            for name in (*triggers, *REFERENCES)
        },
    )


def _rank(outcomes: _Outcomes, seed: int) -> dict[tuple[str, str], tuple[dict[str, float], str]]:
    """`rank_by_problem` of each trigger and outcome; rankings do not depend on the rate."""
    n_problems = len(outcomes.usable)
    draws = np.vstack([np.ones((1, n_problems)), resamples(n_problems, seed=seed)])
    return {
        (name, outcome): rank_by_problem(values, outcomes.labels(outcome), outcomes.usable, draws)
        for name, values in outcomes.values.items()
        for outcome in OUTCOMES
    }


def _accuracies(firings: dict[str, Firing], outcomes: _Outcomes, seed: int) -> dict[str, dict[str, float]]:
    """By trigger: accuracy, its difference to pt and to random corruption, paired on the problems."""
    change = outcomes.corrupted_correct.astype(float) - outcomes.pt_correct
    weights = np.stack([firing.weights for firing in firings.values()])
    # the realised rate, not the requested one: a trigger is no better for firing more or less often on test problems
    rates = weights.sum(1) / outcomes.usable.sum(0)
    gains = (weights * change).mean(2).T
    random_gains = (rates[:, None] * (change * outcomes.usable)).mean(2).T
    columns = {
        "accuracy": gains + outcomes.pt_correct.mean(1)[:, None],
        "difference": gains,
        "above_random": (gains - random_gains).round(12) + 0.0,  # exactly 0, not -0, for `random` itself
    }
    intervals = {name: mean_interval(column, seed=seed) for name, column in columns.items()}
    rows: dict[str, dict[str, float]] = {}
    for k, trigger in enumerate(firings):
        rows[trigger] = {"n_problems": len(gains)}
        for name, bounds in intervals.items():
            value, low, high = (float(bound[k]) for bound in bounds)
            rows[trigger] |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return rows
