"""Methods on the same problems: where each one fires, what it corrupts, and its answers put together (METHOD 6).

Greedy decoding is deterministic: a triggered method takes the answer under the corrupted prompt where it fires and
prompt tuning's elsewhere. The trigger's threshold is calibrated on validation problems, never on those reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger, trigger_statistics
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.jobs import Intervention
from dpc_interp.evaluation.options import Corrupts, Options
from dpc_interp.evaluation.stages import Stages
from dpc_interp.lm.generation import Transcript
from dpc_interp.tasks.problems import Problem, check_distinct

Fires = Literal["never", "rule", "rate", "always", "wrong"]
"""Where: nowhere; by the rule; at random as often as the rule; everywhere; where pt was wrong (a ceiling)."""
METHODS: dict[str, tuple[Fires, Corrupts]] = {
    "base": ("never", "peak"),
    "pt": ("never", "peak"),
    "random": ("rate", "random"),
    "always": ("always", "peak"),
    "dpc": ("rule", "peak"),
    "oracle": ("wrong", "peak"),
    "dpc, random token": ("rule", "random"),
    "dpc, mask only": ("rule", "mask only"),
    "dpc, gamma only": ("rule", "gamma only"),
}
"""Method -> where it fires and what it corrupts; `base` has no prompt. The last three ablate dpc."""
Contexts = Mapping[str, Intervention]
"""Further methods: within such a context every problem is answered again."""


@dataclass(frozen=True)
class Comparison:
    """`instances` and `statistics`: see `Results`. `fixes`: where `always` sets pt right, or None."""

    instances: pd.DataFrame
    statistics: pd.DataFrame
    fixes: np.ndarray | None
    analysis: Analysis
    runs: list[Transcript]


def check_methods(methods: Sequence[str], contexts: Contexts) -> None:
    """Refuse methods that are not known, and contexts that cannot be told apart."""
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, list(METHODS))
    for name, context in contexts.items():
        if name in METHODS:
            raise DPCInterpError(f"{name!r} is the name of a method; name the context otherwise")
        if " at 0x" in repr(context):
            raise DPCInterpError(f"the context {name!r} must tell its options by its repr; make it a frozen dataclass")


def check_problems(problems: Sequence[Problem], validation: Sequence[Problem]) -> None:
    """Refuse no problems, several tasks, or problems that calibrate and are reported."""
    if not problems:
        raise DPCInterpError("there are no problems to evaluate; load some")
    check_distinct(problems)
    check_distinct(validation)
    tasks = {problem.task for problem in problems}
    if len(tasks) > 1:
        raise DPCInterpError(f"problems of several tasks ({', '.join(sorted(tasks))}); evaluate one task at a time")
    shared = {p.id for p in problems} & {p.id for p in validation}
    if shared:
        raise DPCInterpError(
            f"{sorted(shared)[0]} is a validation and a reported problem; use problems of different splits"
        )


def needs_rule(methods: Sequence[str]) -> bool:
    """Whether some method fires by the trigger, or as often as it."""
    return any(METHODS[method][0] in ("rule", "rate") for method in methods)


def calibrate(
    stages: Stages, validation: Sequence[Problem], options: Options, draft_rationales: bool = False
) -> tuple[TriggerRule, pd.DataFrame]:
    """The rule and the validation statistics it is calibrated on, with `corrupted_correct` where the criterion asks."""
    pt = stages.runs("validation-pt", validation, stages.prompt, options.max_new_tokens, draft_rationales)
    found = stages.analysis("validation-analysis", pt, options.target, options.head_reduction)
    stats = trigger_statistics(found, **options.trigger)
    if options.criterion == "accuracy":
        corrupted = stages.corrupted("validation", pt, options.plans("peak", found), options.max_new_tokens)
        stats = stats.assign(corrupted_correct=[corrupted[instance].correct for instance in stats["instance"]])
    rule = calibrate_trigger(stats, options.criterion, options.statistic)
    if options.alpha_offset:
        told = f"{rule.criterion} {options.alpha_offset:+g}"
        rule = replace(rule, threshold=rule.threshold + options.alpha_offset, criterion=told)
    return rule, stats


def compare(
    stages: Stages,
    problems: Sequence[Problem],
    methods: Sequence[str],
    rule: TriggerRule | None,
    options: Options,
    *,
    name: str = "",
    contexts: Contexts | None = None,
    draft_rationales: bool = False,
) -> Comparison:
    """Answer `problems` by each method; without a rule no method may need one. `name` begins those of the stages."""
    pt = stages.runs(f"{name}pt", problems, stages.prompt, options.max_new_tokens, draft_rationales)
    found = stages.analysis(f"{name}analysis", pt, options.target, options.head_reduction)
    stats = trigger_statistics(found, **options.trigger)
    by_rule = [] if rule is None else stats["instance"][rule.fires(stats)].tolist()
    fired = _fired(pt, stats["instance"].tolist(), by_rule, options.seed)
    answers: dict[str, list[Transcript]] = {"pt": pt}
    if "base" in methods:
        answers["base"] = stages.runs(f"{name}base", problems, None, options.max_new_tokens)
    chosen = {method: METHODS[method] for method in methods if method not in ("base", "pt")}
    for what in dict.fromkeys(what for _, what in chosen.values()):
        users = {method: fired[where] for method, (where, used) in chosen.items() if used == what}
        needed = [run for run, wanted in zip(pt, np.any(list(users.values()), axis=0), strict=True) if wanted]
        corrupted = stages.corrupted(f"{name}{what}", needed, options.plans(what, found), options.max_new_tokens)
        for method, where in users.items():
            answers[method] = [corrupted[run.problem.id] if f else run for run, f in zip(pt, where, strict=True)]
    order = {method: fired[METHODS[method][0]] for method in METHODS if method in answers}
    for method, context in (contexts or {}).items():
        changed = stages.corrupted(f"{name}{method}", pt, None, options.max_new_tokens, within=context)
        answers[method] = list(changed.values())
        order[method] = np.ones(len(pt), dtype=bool)
    fixes = None
    if "always" in methods:
        fixes = np.array([now.correct and not run.correct for now, run in zip(answers["always"], pt, strict=True)])
    frames = [_instance_frame(stages.prompt.name, method, answers[method], where) for method, where in order.items()]
    return Comparison(pd.concat(frames, ignore_index=True), stats, fixes, found, pt)


def _fired(pt: list[Transcript], usable: list[str], by_rule: list[str], seed: int) -> dict[str, np.ndarray]:
    """Where each kind of trigger fires, one boolean a problem; never where there is no rationale to measure."""
    names = [run.problem.id for run in pt]
    measured, chosen = np.isin(names, usable), np.isin(names, by_rule)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(measured))[: int(chosen.sum())]
    return {
        "never": np.zeros(len(pt), dtype=bool),
        "rule": chosen,
        "rate": np.isin(np.arange(len(pt)), drawn),
        "always": measured,
        "wrong": measured & np.array([not run.correct for run in pt]),
    }


def _instance_frame(prompt: str, method: str, runs: list[Transcript], fired: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": [run.problem.task for run in runs],
            "prompt": prompt,
            "method": method,
            "instance": [run.problem.id for run in runs],
            "answer": pd.Series([run.answer for run in runs], dtype="string"),
            "correct": [run.correct for run in runs],
            "fired": fired,
            "n_tokens": [len(run.generated_tokens) for run in runs],
        }
    )
