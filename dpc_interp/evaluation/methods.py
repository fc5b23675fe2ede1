"""Who wins: base, prompt tuning and the corruptions on the same problems (METHOD 6).

Greedy decoding is deterministic: a triggered method takes the answer under the corrupted prompt where it fires and
prompt tuning's elsewhere. The trigger's threshold is calibrated on validation problems, never on those reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.trigger import (
    STATISTICS,
    Criterion,
    TriggerRule,
    calibrate_trigger,
    check_names,
    trigger_statistics,
)
from dpc_interp.corruption.plan import CorruptionPlan, plan_corruption, plan_random
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.stages import Stages, problem_digest
from dpc_interp.evaluation.statistics import ranking, summarise
from dpc_interp.evaluation.store import RunStore, digest
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import SoftPrompt, check_prompt
from dpc_interp.tasks.problems import Problem, check_distinct, has_validation, load_problems

Fires = Literal["never", "rule", "rate", "always", "wrong"]
"""Where: nowhere; by the rule; at random as often as the rule; everywhere; where pt was wrong (a ceiling)."""
Corrupts = Literal["peak", "random", "mask only", "gamma only"]
"""What: the accumulation token and Gamma; a random token and Gamma; the accumulation token alone; Gamma alone."""
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
MAIN = ("base", "pt", "random", "always", "dpc", "oracle")


@dataclass(frozen=True)
class Results:
    """`instances`: task, prompt, method, instance, answer, correct, fired, n_tokens. `summary`: see `summarise`.
    `triggers`: each statistic's AUROC and average precision against 'PT was wrong' and 'corruption fixes it'.
    `statistics`: `trigger_statistics` of the test runs. `rule`: the calibrated trigger. `validation`: the statistics it
    was calibrated on (empty where a rule was given). `timings`: seconds and tokens of each stage (stages read from a
    store are not there).
    `analysis`: the frames the statistics come from. `runs`: the prompted transcripts.
    """

    instances: pd.DataFrame
    summary: pd.DataFrame
    triggers: pd.DataFrame
    statistics: pd.DataFrame
    rule: TriggerRule
    validation: pd.DataFrame
    timings: pd.DataFrame
    analysis: Analysis
    runs: list[Transcript]


def evaluate(
    model: HookedModel,
    problems: Sequence[Problem],
    prompt: SoftPrompt,
    methods: Sequence[str] = MAIN,
    out: str | Path | None = None,
    *,
    validation: Sequence[Problem] | None = None,
    rule: TriggerRule | None = None,
    statistic: str = "late_share",
    criterion: Criterion = "youden",
    gamma: float = 10,
    mask: float = 0.0,
    exclude_sink: bool = True,
    seed: int = 0,
    max_new_tokens: int = 96,
    batch_size: int = 128,
    draft_rationales: bool = False,
    progress: bool = True,
) -> Results:
    """Compare methods on the same problems.

    Args:
        problems: of one task, none of them among `validation`.
        methods: names from `METHODS`; `pt` is always run, the others are compared with it.
        out: a folder that keeps each finished stage; a run stopped there goes on. None: nothing is kept.
        validation: problems that calibrate the trigger; None: 200 of the validation split of a synthetic task.
        rule: a trigger calibrated before; then no validation is needed.
        statistic, criterion: see `calibrate_trigger`.
        gamma, mask, exclude_sink: see `plan_corruption`.
        seed: of the random placebo and of the bootstrap.
        draft_rationales: try the written rationales as drafts of prompt tuning's answers. The answers are the same and
            come sooner where most are right; `timings` then do not tell what decoding costs.

    Raises:
        DPCInterpError: unknown methods, several tasks, validation problems among the reported ones, or no way to
            calibrate; all before anything is generated.
    """
    _check(problems, methods, validation)
    check_names(statistic if rule is None else rule.statistic, criterion)
    CorruptionPlan(mask=mask, gamma=gamma)  # refuses what is out of range
    check_prompt(model, prompt.vectors)
    task = problems[0].task
    if rule is None and validation is None:
        if not has_validation(task):
            raise DPCInterpError(
                f"{task!r} has no validation split of ours; give validation= problems or a calibrated rule="
            )
        validation = load_problems(task, "validation", n=200, seed=seed)
    options: dict[str, object] = {
        "gamma": gamma,
        "mask": mask,
        "exclude_sink": exclude_sink,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
    }
    options |= {"statistic": statistic, "criterion": criterion, "rule": None if rule is None else asdict(rule)}
    options |= {
        "prompt": digest(prompt.vectors.detach().cpu().float().numpy().tobytes()),
        "model": _model_digest(model),
    }
    options |= {"problems": problem_digest(problems), "validation": problem_digest(validation or [])}
    stages = Stages(model, RunStore(out, options), prompt, max_new_tokens, batch_size, progress)

    pt = stages.runs("pt", problems, prompt, drafts=_written(model, problems) if draft_rationales else None)
    found = stages.analysis("analysis", pt)
    stats = trigger_statistics(found, exclude_sink=exclude_sink)
    calibration = pd.DataFrame()
    if rule is None:
        drafts = _written(model, validation or []) if draft_rationales else None
        calibration = _calibration(stages, validation or [], drafts, criterion, gamma, mask, exclude_sink)
        rule = calibrate_trigger(calibration, criterion, statistic)
    fired = _fired(pt, _mark(problems, stats["instance"]), _mark(problems, stats["instance"][rule.fires(stats)]), seed)
    plans = {
        "peak": plan_corruption(found, gamma, mask, exclude_sink=exclude_sink),
        "random": plan_random(
            found.instances["instance"].tolist(), prompt.n_virtual, seed, gamma, mask, exclude_sink=exclude_sink
        ),
        "mask only": plan_corruption(found, 0, mask, exclude_sink=exclude_sink),
        "gamma only": [CorruptionPlan(gamma=gamma)] * len(found.instances),
    }

    answers: dict[str, list[Transcript]] = {"pt": pt}
    if "base" in methods:
        answers["base"] = stages.runs("base", problems, None)
    chosen = {method: METHODS[method] for method in methods if method not in ("base", "pt")}
    for what in dict.fromkeys(what for _, what in chosen.values()):
        users = [method for method, (_, used) in chosen.items() if used == what]
        needed = np.any([fired[METHODS[method][0]] for method in users], axis=0)
        corrupted = stages.corrupted(what, pt, needed, dict(zip(found.instances["instance"], plans[what], strict=True)))
        for method in users:
            where = fired[METHODS[method][0]]
            answers[method] = [
                corrupted.get(run.problem.id, run) if f else run for run, f in zip(pt, where, strict=True)
            ]
    fixes = None
    if "always" in methods:
        fixes = np.array([now.correct and not run.correct for now, run in zip(answers["always"], pt, strict=True)])

    frames = [
        _instance_frame(prompt, method, answers[method], fired[METHODS[method][0]])
        for method in METHODS
        if method in answers
    ]
    instances = pd.concat(frames, ignore_index=True)
    summary = summarise(instances, seed=seed)
    summary.insert(0, "task", task)
    triggers = _triggers(task, prompt, problems, stats, fixes, seed)
    return Results(instances, summary, triggers, stats, rule, calibration, stages.timings(), found, pt)


def _check(problems: Sequence[Problem], methods: Sequence[str], validation: Sequence[Problem] | None) -> None:
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, list(METHODS))
    if not problems:
        raise DPCInterpError("there are no problems to evaluate; load some")
    check_distinct(problems)
    check_distinct(validation or ())
    tasks = {problem.task for problem in problems}
    if len(tasks) > 1:
        raise DPCInterpError(f"problems of several tasks ({', '.join(sorted(tasks))}); evaluate one task at a time")
    shared = {p.id for p in problems} & {p.id for p in validation or ()}
    if shared:
        raise DPCInterpError(
            f"{sorted(shared)[0]} is a validation and a reported problem; use problems of different splits"
        )


def _calibration(
    stages: Stages,
    validation: Sequence[Problem],
    drafts: Sequence[Tensor] | None,
    criterion: Criterion,
    gamma: float,
    mask: float,
    exclude_sink: bool,
) -> pd.DataFrame:
    """The statistics of the validation runs, with the outcome of corruption where the criterion asks for it."""
    pt = stages.runs("validation-pt", validation, stages.prompt, drafts=drafts)
    found = stages.analysis("validation-analysis", pt)
    stats = trigger_statistics(found, exclude_sink=exclude_sink)
    if criterion != "accuracy":
        return stats
    plans = dict(
        zip(found.instances["instance"], plan_corruption(found, gamma, mask, exclude_sink=exclude_sink), strict=True)
    )
    corrupted = stages.corrupted("validation", pt, np.ones(len(pt), dtype=bool), plans)
    return stats.assign(corrupted_correct=[corrupted[instance].correct for instance in stats["instance"]])


def _written(model: HookedModel, problems: Sequence[Problem]) -> list[Tensor]:
    """Token ids of the written rationales, each with the stop token."""
    tokenizer = tokenizer_of(model)
    coded = [tokenizer(problem.rationale, add_special_tokens=False).input_ids for problem in problems]
    return [torch.tensor([*ids, tokenizer.eos_token_id]) for ids in coded]


def _fired(pt: list[Transcript], usable: np.ndarray, by_rule: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Where each kind of trigger fires, one boolean a problem; never where there is no rationale to measure."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(usable))[: int(by_rule.sum())]
    return {
        "never": np.zeros(len(pt), dtype=bool),
        "rule": by_rule,
        "rate": np.isin(np.arange(len(pt)), drawn),
        "always": usable,
        "wrong": usable & np.array([not run.correct for run in pt]),
    }


def _mark(problems: Sequence[Problem], chosen: Sequence[str] | pd.Series) -> np.ndarray:
    return np.isin([p.id for p in problems], list(chosen))


def _instance_frame(prompt: SoftPrompt, method: str, runs: list[Transcript], fired: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": [run.problem.task for run in runs],
            "prompt": prompt.name,
            "method": method,
            "instance": [run.problem.id for run in runs],
            "answer": pd.Series([run.answer for run in runs], dtype="string"),
            "correct": [run.correct for run in runs],
            "fired": fired,
            "n_tokens": [len(run.generated_tokens) for run in runs],
        }
    )


def _triggers(
    task: str, prompt: SoftPrompt, problems: Sequence[Problem], stats: pd.DataFrame, fixes: np.ndarray | None, seed: int
) -> pd.DataFrame:
    """Each statistic as a trigger: AUROC and average precision, with intervals, against both outcomes."""
    outcomes = {"PT was wrong": ~stats["correct"].to_numpy(bool)}
    if fixes is not None:
        fixed = dict(zip([p.id for p in problems], fixes, strict=True))
        outcomes["corruption fixes it"] = stats["instance"].map(fixed).to_numpy(bool)
    rows = [
        {"task": task, "prompt": prompt.name, "statistic": name, "outcome": outcome}
        | ranking(labels, stats[name].to_numpy(float), seed)
        for outcome, labels in outcomes.items()
        for name in STATISTICS
    ]
    return pd.DataFrame(rows)


def _model_digest(model: HookedModel) -> str:
    return digest(*(p.detach().cpu().float().numpy().tobytes() for p in model.parameters()))
