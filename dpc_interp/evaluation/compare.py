"""Methods compared on the same problems: where each fires and what it answers (docs/method.md, section 6).

Greedy decoding is deterministic, so a triggered method takes the answer under the corrupted prompt where it fires and
the answer of prompt tuning elsewhere. The trigger threshold is calibrated on validation problems, never on reported
ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger, trigger_statistics
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.methods import METHODS, TRIGGERED, Contexts
from dpc_interp.evaluation.stages import Stages
from dpc_interp.generation.transcript import Transcript
from dpc_interp.interventions.knockout import KnockoutPlan
from dpc_interp.interventions.option_plans import plans_from_options
from dpc_interp.interventions.random_prompt import plan_random_prompts
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.tasks.problem import PLACE, Problem, check_distinct


@dataclass(frozen=True)
class Comparison:
    """The answers of all methods.

    Attributes:
        instances, statistics, analysis, runs: see `Results`.
        fixes: by instance, whether `always` corrects an answer that PT got wrong; None without `always`.
    """

    instances: pd.DataFrame
    statistics: pd.DataFrame
    fixes: pd.Series | None
    analysis: Analysis
    runs: list[Transcript]


def check_problems(problems: Sequence[Problem], validation: Sequence[Problem]) -> None:
    """Raise `DPCInterpError` for no problems, several tasks, or problems that both calibrate and are reported."""
    if not problems:
        raise DPCInterpError("there are no problems to evaluate; load some")
    check_distinct(problems)
    check_distinct(validation)
    tasks = {problem.task for problem in problems}
    if len(tasks) > 1:
        raise DPCInterpError(f"problems of several tasks ({', '.join(sorted(tasks))}); evaluate one task at a time")
    ids, questions = {p.id for p in problems}, {p.question for p in problems}
    shared = sorted(p.id for p in validation if p.id in ids or p.question in questions)
    if shared:
        raise DPCInterpError(f"{shared[0]} is a validation and a reported problem; use problems of different splits")


def analyse_pt(
    stages: Stages, problems: Sequence[Problem], options: Options, prefix: str = ""
) -> tuple[list[Transcript], Analysis]:
    """The transcripts of prompt tuning and their analysis; `prefix` starts the names of both stages."""
    pt = stages.runs(f"{prefix}pt", problems, stages.prompt, options.text, draft=True)
    return pt, stages.analysis(f"{prefix}analysis", pt, options.target, options.head_reduction)


def statistics_of(analysis: Analysis, options: Options) -> pd.DataFrame:
    """`trigger_statistics` with these options."""
    return trigger_statistics(
        analysis,
        deep=options.deep,
        shallow=options.shallow,
        beta=options.beta,
        beta_statistic=options.beta_statistic,
        exclude_sink=options.exclude_sink,
    )


def calibrate(stages: Stages, validation: Sequence[Problem], options: Options) -> tuple[TriggerRule, pd.DataFrame]:
    """The trigger rule, and the validation statistics that it is calibrated on.

    The statistics have the column `corrupted_correct` where the criterion needs it.
    """
    pt, analysis = analyse_pt(stages, validation, options, "validation-")
    stats = statistics_of(analysis, options)
    if options.criterion == "accuracy":
        plans = plans_from_options(options, "peak", analysis)
        corrupted = stages.corrupted("validation", pt, plans, options.text)
        stats = stats.assign(corrupted_correct=[corrupted[instance].correct for instance in stats["instance"]])
    rule = calibrate_trigger(stats, options.criterion, options.statistic)
    if options.alpha_offset:
        criterion = f"{rule.criterion} {options.alpha_offset:+g}"
        rule = replace(rule, threshold=rule.threshold + options.alpha_offset, criterion=criterion)
        rule = replace(rule, n_fired=int(rule.fires(stats).sum()), youden=float("nan"), p=float("nan"))
    return rule, stats


def compare(
    stages: Stages,
    problems: Sequence[Problem],
    methods: Sequence[str],
    rule: TriggerRule | None,
    options: Options,
    *,
    prefix: str = "",
    contexts: Contexts | None = None,
) -> Comparison:
    """Answer `problems` by each method.

    Args:
        stages: where the work is done and stored.
        problems: of one task.
        methods: names from `METHODS`; `pt` is always among the results.
        rule: the trigger; None: no method may need one.
        options: what is computed.
        prefix: starts the names of the stages.
        contexts: further methods, see `evaluate`.
    """
    pt, analysis = analyse_pt(stages, problems, options, prefix)
    stats = statistics_of(analysis, options)
    fired_by_rule = [] if rule is None else stats["instance"][rule.fires(stats)].tolist()
    fired = _where_each_fires(pt, stats["instance"].tolist(), fired_by_rule, options.seed)
    answers = {"pt": pt, **_untriggered(stages, problems, pt, methods, options, prefix)}
    corrupting = {method: TRIGGERED[method] for method in methods if method in TRIGGERED}
    for corrupts in dict.fromkeys(corrupts for _, corrupts in corrupting.values()):
        users = {method: fired[fires] for method, (fires, used) in corrupting.items() if used == corrupts}
        needed = [run for run, any_fires in zip(pt, np.any(list(users.values()), axis=0), strict=True) if any_fires]
        plans = plans_from_options(options, corrupts, analysis)
        corrupted = stages.corrupted(f"{prefix}{corrupts}", needed, plans, options.text)
        for method, fires_at in users.items():
            answers[method] = [
                corrupted[run.problem.id] if fires else run for run, fires in zip(pt, fires_at, strict=True)
            ]
    fires_by_method = {
        method: fired[TRIGGERED[method][0]] if method in TRIGGERED else np.zeros(len(pt), dtype=bool)
        for method in METHODS
        if method in answers
    }
    for method, context in (contexts or {}).items():
        changed = stages.corrupted(f"{prefix}{method}", pt, None, options.text, within=context)
        answers[method] = list(changed.values())
        fires_by_method[method] = np.ones(len(pt), dtype=bool)
    fixes = None
    if "always" in methods:
        fixed = [after.correct and not before.correct for after, before in zip(answers["always"], pt, strict=True)]
        fixes = pd.Series(fixed, index=[run.problem.id for run in pt])
    frames = [
        _instance_frame(stages.prompt.name, method, answers[method], pt, fires)
        for method, fires in fires_by_method.items()
    ]
    return Comparison(pd.concat(frames, ignore_index=True), stats, fixes, analysis, pt)


def instructed(problems: Sequence[Problem], instruction: str) -> list[Problem]:
    """The problems with a written instruction in their questions.

    Args:
        problems: any problems.
        instruction: a text with `{question}`.
    """
    return [replace(problem, question=instruction.replace(PLACE, problem.question)) for problem in problems]


def _untriggered(
    stages: Stages,
    problems: Sequence[Problem],
    pt: list[Transcript],
    methods: Sequence[str],
    options: Options,
    prefix: str,
) -> dict[str, list[Transcript]]:
    """The answers of the methods without a trigger, apart from `pt`."""
    answers: dict[str, list[Transcript]] = {}
    questions = {"bare": problems, "instruct": instructed(problems, options.instruction)}
    for method in methods:
        if method in questions:
            answers[method] = stages.runs(f"{prefix}{method}", questions[method], None, options.text)
    ids = [problem.id for problem in problems]
    plans: dict[str, PromptEdit] = {}
    for method in methods:
        if method == "random_prompt":
            plans = dict(zip(ids, plan_random_prompts(stages.model, ids, options.seed), strict=True))
        elif method == "cut_off":
            plans = dict.fromkeys(ids, KnockoutPlan(tuple(range(stages.prompt.n_virtual))))
        else:
            continue
        answers[method] = list(stages.corrupted(f"{prefix}{method}", pt, plans, options.text).values())
    return answers


def _where_each_fires(
    pt: list[Transcript], analysed: list[str], fired_by_rule: list[str], seed: int
) -> dict[str, np.ndarray]:
    """By kind of trigger, one boolean per problem; never True where there is no rationale to analyse."""
    names = [run.problem.id for run in pt]
    can_fire, by_rule = np.isin(names, analysed), np.isin(names, fired_by_rule)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(can_fire))[: int(by_rule.sum())]
    return {
        "rule": by_rule,
        "matched_rate": np.isin(np.arange(len(pt)), drawn),
        "always": can_fire,
        "oracle": can_fire & np.array([not run.correct for run in pt]),
    }


def _instance_frame(
    prompt: str, method: str, runs: list[Transcript], pt: list[Transcript], fired: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": [run.problem.task for run in runs],
            "prompt": prompt,
            "method": method,
            "instance": [run.problem.id for run in runs],
            "answer": pd.Series([run.answer for run in runs], dtype="string"),
            "correct": [run.correct for run in runs],
            "finished": [run.finished for run in runs],
            "fired": fired,
            "changed": [
                not torch.equal(run.generated_tokens, before.generated_tokens)
                for run, before in zip(runs, pt, strict=True)
            ],
            "n_tokens": [len(run.generated_tokens) for run in runs],
        }
    )
