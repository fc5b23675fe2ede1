"""Who wins: base, prompt tuning and the corruptions on the same problems (METHOD 6), with intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dpc_interp.analysis.analyse import Analysis, Target
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.analysis.trigger import STATISTICS, Criterion, TriggerRule
from dpc_interp.corruption.plan import Replace
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.compare import METHODS, Contexts, calibrate, check_methods, check_problems, compare
from dpc_interp.evaluation.engine import check_engine, open_engine
from dpc_interp.evaluation.options import KnockOut, Options
from dpc_interp.evaluation.price import price
from dpc_interp.evaluation.stages import SHARD_SIZE, Stages, check_sizes, model_digest, problem_digest, prompt_digest
from dpc_interp.evaluation.statistics import ranking, summarise
from dpc_interp.evaluation.store import RunStore
from dpc_interp.lm.generation import Transcript, questions_of
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import SoftPrompt, check_prompt
from dpc_interp.tasks.problems import Problem, has_validation, load_problems

__all__ = ["MAIN", "METHODS", "Results", "evaluate", "validation_of"]
MAIN = ("base", "pt", "random", "always", "dpc", "oracle")


@dataclass(frozen=True)
class Results:
    """`instances`: task, prompt, method, instance, answer, correct, fired, n_tokens. `summary`: see `summarise`.
    `triggers`: each statistic's AUROC and average precision against 'PT was wrong' and 'corruption fixes it'.
    `statistics`: `trigger_statistics` of the test runs. `rule`: the calibrated trigger. `validation`: the statistics it
    was calibrated on (empty where a rule was given). `timings`: seconds and tokens of each stage, those that an earlier
    call made in `out` among them: tokens written, or those of the rationales analysed.
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

    @property
    def price(self) -> pd.DataFrame:
        """Seconds and tokens of each method beside plain prompt tuning; see `evaluation.price.price`."""
        return price(self.timings, self.instances)


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
    alpha_offset: float = 0.0,
    beta: float | None = None,
    deep: Sequence[int] | None = None,
    shallow: Sequence[int] | None = None,
    exclude_sink: bool = True,
    target: Target = "generated",
    head_reduction: HeadReduction = "abs_of_sum",
    token: int | str = "peak",
    top_k: int = 1,
    replace: Replace = "mask",
    gamma: float = 10,
    mask: float = 0.0,
    knock_out: KnockOut = "nowhere",
    seed: int = 0,
    contexts: Contexts | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 128,
    shard_size: int = SHARD_SIZE,
    draft_rationales: bool = False,
    engine: str = "local",
    n_workers: int | None = None,
    progress: bool = True,
) -> Results:
    """Compare methods on the same problems.

    Args:
        problems: of one task, none of them among `validation`.
        methods: names from `METHODS`; `pt` is always run, the others are compared with it.
        out: a folder that keeps each finished shard; a run stopped there goes on by the same call. None: nothing is
            kept.
        validation: problems that calibrate the trigger; None: 200 of the validation split of a synthetic task.
        rule: a trigger calibrated before; then no validation is needed.
        statistic, criterion: see `calibrate_trigger`.
        alpha_offset: added to the calibrated threshold.
        beta, deep, shallow: see `trigger_statistics`; `shallow` also for the accumulation token.
        target, head_reduction: see `analyse`.
        token: what is corrupted: `peak`, the accumulation token of each instance; `random`; or one virtual token, by
            its number, for all instances.
        top_k, replace, gamma, mask, exclude_sink: see `plan_corruption`.
        knock_out: corrupt by cutting what is written off from the accumulation token, at the `shallow` layers, the
            `deep` ones or `everywhere`, instead of changing vectors; see `KnockoutPlan`.
        seed: of the random placebo, of noise and of the bootstrap.
        contexts: further methods by name: frozen dataclasses, called with the model, that give a context within which
            every problem is answered again (they fire everywhere).
        max_new_tokens, batch_size: see `generate`.
        shard_size: instances that are finished, and stored, together (of an analysis at most 64): a smaller one loses
            less where a run is stopped and keeps more workers busy, and no batch is larger.
        draft_rationales: try the written rationales as drafts of prompt tuning's answers. The answers are the same and
            come sooner where most are right; `timings` then do not tell what decoding costs.
        engine: `local`, this process; `ray`, actors that each hold the model, on the Ray that is initialised or at
            RAY_ADDRESS, or else on one started on this machine. The rows are the same.
        n_workers: actors of `ray`; None: one a GPU for a model on a GPU, else one a core.

    Raises:
        DPCInterpError: unknown methods, options that are not known, out of range or not of this model, several tasks,
            validation problems among the reported ones, no way to calibrate, questions past the context, or a folder of
            another run; all before anything is generated. A disk that is full, or a worker that dies again and again:
            what is finished is kept.
    """
    options = Options(
        statistic=statistic if rule is None else rule.statistic,
        criterion=criterion,
        alpha_offset=alpha_offset,
        beta=beta,
        deep=None if deep is None else tuple(deep),
        shallow=None if shallow is None else tuple(shallow),
        exclude_sink=exclude_sink,
        target=target,
        head_reduction=head_reduction,
        token=token,
        top_k=top_k,
        replace=replace,
        mask=mask,
        gamma=gamma,
        knock_out=knock_out,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    contexts = contexts or {}
    check_methods(methods, contexts)
    check_problems(problems, validation or ())
    check_prompt(model, prompt.vectors)
    check_sizes(batch_size, shard_size)
    check_engine(engine, n_workers)
    if rule is not None and alpha_offset:
        raise DPCInterpError("alpha_offset moves a calibrated threshold; write the one you mean into the rule")
    task = problems[0].task
    if rule is None and validation is None:
        validation = validation_of(task, 200, seed)
    options.check(model, prompt, [*problems, *(validation or ())])
    questions_of(model, [*problems, *(validation or ())], prompt.n_virtual, max_new_tokens)
    model_key = model_digest(model)
    manifest = asdict(options) | {
        "rule": None if rule is None else asdict(rule),
        "draft_rationales": draft_rationales,
        "shard_size": shard_size,
        "prompt": prompt_digest(prompt),
        "model": model_key,
        "problems": problem_digest(problems),
        "validation": problem_digest(validation or []),
    }
    store = RunStore(out, manifest)
    calibration = pd.DataFrame()
    with open_engine(engine, n_workers) as running:
        stages = Stages(
            model,
            store,
            prompt,
            running,
            batch_size=batch_size,
            shard_size=shard_size,
            progress=progress,
            model_key=model_key,
        )
        if rule is None:
            rule, calibration = calibrate(stages, validation or [], options, draft_rationales)
        found = compare(stages, problems, methods, rule, options, contexts=contexts, draft_rationales=draft_rationales)
    summary = summarise(found.instances, seed=seed)
    summary.insert(0, "task", task)
    triggers = _triggers(task, prompt, problems, found.statistics, found.fixes, seed)
    return Results(
        found.instances,
        summary,
        triggers,
        found.statistics,
        rule,
        calibration,
        store.timings(),
        found.analysis,
        found.runs,
    )


def validation_of(task: str, n: int, seed: int) -> list[Problem]:
    """Validation problems of a task that has them."""
    if not has_validation(task):
        raise DPCInterpError(
            f"{task!r} has no validation split of ours; give validation= problems or a calibrated rule="
        )
    return load_problems(task, "validation", n=n, seed=seed)


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
