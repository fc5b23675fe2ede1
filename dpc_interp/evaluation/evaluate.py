"""`evaluate` compares the model, prompt tuning and the corruptions on the same problems (docs/method.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.analysis.trigger import TriggerRule
from dpc_interp.errors import DPCInterpError, warn_renamed
from dpc_interp.evaluation.compare import calibrate, check_problems, compare, instructed
from dpc_interp.evaluation.cost import method_costs
from dpc_interp.evaluation.methods import MAIN_METHODS, Contexts, check_methods, needs_placebo
from dpc_interp.evaluation.stages import Stages, problem_digest, prompt_digest
from dpc_interp.evaluation.summary import summarise
from dpc_interp.execution.digest import digest, model_digest
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.execution.store import RunStore
from dpc_interp.generation.stopping import warn_unfinished
from dpc_interp.generation.text_options import settle_max_new_tokens
from dpc_interp.generation.transcript import Transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.interventions.option_plans import check_options
from dpc_interp.models.encoding import encode_questions
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt
from dpc_interp.prompts.tuned_on import warn_of_training_questions, warn_of_unknown_format
from dpc_interp.repr_html import card, table_block
from dpc_interp.stats.ranking import ranking
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import AnyProblems, as_problems, has_validation, load_problems

N_VALIDATION = 200
"""Validation problems that `evaluate` draws where none are given."""


@dataclass(frozen=True)
class Results:
    """The result of `evaluate`.

    Attributes:
        instances: one row per method and problem: task, prompt, method, instance, answer, correct, finished (False: cut
            off at `max_new_tokens`), fired, changed (whether the text differs from that of pt), n_tokens.
        summary: one row per method, see `summarise`.
        triggers: AUROC and average precision of each statistic against 'PT was wrong' and 'corruption fixes it'.
        statistics: `trigger_statistics` of the test problems.
        rule: the calibrated trigger.
        validation: the statistics that the rule was calibrated on; empty where a rule was given.
        timings: seconds and tokens of each stage, including those computed by earlier calls with the same `out`.
            Tokens are generated ones, or in an analysis those of the rationales.
        analysis: the frames that the statistics are computed from.
        runs: the prompted transcripts.
        options: what was computed.
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
    options: Options

    def __repr__(self) -> str:
        methods = ", ".join(self.instances["method"].unique())
        n = self.instances["instance"].nunique()
        return f"Results({self.task!r}, {self.prompt!r}, {n} instances, methods: {methods})"

    def _repr_html_(self) -> str:
        facts = {
            "instances": self.instances["instance"].nunique(),
            "trigger": f"{self.rule.statistic} > {self.rule.threshold:.4g}",
        }
        note = "frames: .instances, .statistics, .triggers, .cost; transcripts: .runs"
        return card(f"Results of {self.prompt} on {self.task}", facts, table_block(self.summary), note=note)

    @property
    def task(self) -> str:
        """The task of the problems."""
        return str(self.instances["task"].iloc[0])

    @property
    def prompt(self) -> str:
        """The name of the prompt."""
        return str(self.instances["prompt"].iloc[0])

    @property
    def cost(self) -> pd.DataFrame:
        """Seconds and tokens of each method relative to prompt tuning; see `evaluation.cost.method_costs`."""
        return method_costs(self.timings, self.instances)

    @property
    def price(self) -> pd.DataFrame:
        """Deprecated name of `cost`."""
        warn_renamed("Results.price", "Results.cost")
        return self.cost


def check_distinct_prompts(results: Sequence[Results]) -> None:
    """Check that no two results of a task are of the same prompt, which would count as two tuning seeds.

    Args:
        results: results of any tasks.

    Raises:
        DPCInterpError: two of one task name the same prompt.
    """
    seen: set[tuple[str, str]] = set()
    for result in results:
        if (result.task, result.prompt) in seen:
            raise DPCInterpError(
                f"two results of {result.task!r} are of the same prompt {result.prompt!r}; give each prompt once"
            )
        seen.add((result.task, result.prompt))


@torch_defaults()
def evaluate(
    model: AnyModel,
    problems: AnyProblems,
    prompt: AnyPrompt,
    methods: Sequence[str] = MAIN_METHODS,
    out: str | Path | None = RunConfig.out,
    *,
    validation: AnyProblems | None = None,
    rule: TriggerRule | None = None,
    contexts: Contexts | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    **fields: Any,
) -> Results:
    """Compare methods on the same problems.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        problems: of one task, none of them among `validation`; or a name (200 problems of the test split), a file or
            rows.
        prompt: the tuned soft prompt, or its name.
        methods: names from `METHODS`; `pt` is always run, the others are compared with it.
        out: folder that keeps each finished shard, a field of `RunConfig`.
        validation: problems that calibrate the trigger; or a name (200 problems of the validation split), a file or
            rows. None: 200 of the validation split of the task.
        rule: a trigger that is already calibrated; then no validation problems are needed, and the options `statistic`
            and `criterion` are not used.
        contexts: further methods by name: frozen dataclasses that map the model to a context within which every
            problem is answered again (they fire everywhere).
        options: what is computed; None: the defaults of `Options`.
        run: how it is run; None: the defaults of `RunConfig`.
        fields: single fields of `Options` and `RunConfig` by their own names, such as `gamma=5` or `batch_size=32`.

    Returns:
        The frames of the comparison, see `Results`.

    Raises:
        DPCInterpError: unknown methods or fields, options out of range or unknown to this model, several tasks,
            validation problems among the reported ones, no way to calibrate, questions longer than the context, or a
            folder of another run; all before anything is generated. A full disk, or a worker that keeps dying:
            finished shards are kept.

    Example:
        >>> import dpc_interp as dpc
        >>> model, problems = dpc.load_model("reasoner"), dpc.load_problems("story", n=4)
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> prompt = dpc.load_prompt("reasoner/story")
        >>> results = dpc.evaluate(model, problems, prompt, ["dpc"], rule=rule, progress=False)
        >>> results.summary["method"].tolist()
        ['pt', 'dpc']
    """
    if out is not None:
        fields["out"] = out
    options, run = read_keywords(fields, options or Options(), run or RunConfig())
    contexts = contexts or {}
    methods = check_methods(methods, contexts)
    name = problems if isinstance(problems, str | Path) else None  # a file may have the name of another task
    problems, prompt = as_problems(problems), as_prompt(prompt)
    validation = None if validation is None else as_problems(validation, "validation")
    check_problems(problems, validation or ())
    model = as_model(model)
    check_prompt(model, prompt.vectors)
    if rule is not None:
        options = replace(options, statistic=rule.statistic)
        if options.alpha_offset:
            raise DPCInterpError("alpha_offset moves a calibrated threshold; put the threshold you want into the rule")
    task = problems[0].task
    if rule is None and validation is None:
        validation = validation_problems(name or task, N_VALIDATION)  # the same for every seed
    all_problems = [*problems, *(validation or ())]
    check_options(options, model, prompt, all_problems, placebo=needs_placebo(methods, options))
    warn_of_training_questions(prompt, problems, "test")
    warn_of_training_questions(prompt, validation or [], "validation")
    warn_of_unknown_format(prompt, all_problems, options.template is not None)
    text = options.text.for_prompt(prompt.recipe)
    longest = [*all_problems, *instructed(problems if "instruct" in methods else [], options.instruction)]
    options = replace(options, max_new_tokens=settle_max_new_tokens(model, longest, prompt.n_virtual, text))
    questions = encode_questions(model, all_problems, 0, 0, given=text.question_format)
    model_key = model_digest(model)
    manifest = options.record() | {
        "questions": digest(repr([question.tolist() for question in questions]).encode()),
        "rule": None if rule is None else asdict(rule),
        "speculate_from_gold": bool(run.speculate_from_gold),
        "shard_size": run.shard_size,
        "prompt": prompt_digest(prompt),
        "model": model_key,
        "problems": problem_digest(problems),
        "validation": problem_digest(validation or []),
    }
    store = RunStore(run.out, manifest)
    calibration = pd.DataFrame()
    with run.open_engine() as engine:
        stages = Stages(model, store, prompt, engine, run, model_key=model_key)
        if rule is None:
            rule, calibration = calibrate(stages, validation or [], options)
        compared = compare(stages, problems, methods, rule, options, contexts=contexts)
    warn_unfinished(compared.runs, options.max_new_tokens or 0)
    summary = summarise(compared.instances, seed=options.seed)
    summary.insert(0, "task", task)
    return Results(
        instances=compared.instances,
        summary=summary,
        triggers=_rank_statistics(compared.statistics, compared.fixes, prompt.name, options.seed),
        statistics=compared.statistics,
        rule=rule,
        validation=calibration,
        timings=store.timings(),
        analysis=compared.analysis,
        runs=compared.runs,
        options=options,
    )


def validation_problems(task: str | Path, n: int, seed: int = 0) -> list[Problem]:
    """Draw `n` validation problems of a task, or raise `DPCInterpError` where it has no validation split."""
    if not has_validation(task):
        raise DPCInterpError(f"{str(task)!r} has no validation split; give validation= problems or a calibrated rule=")
    return load_problems(task, "validation", n=n, seed=seed)


def _rank_statistics(stats: pd.DataFrame, fixes: pd.Series | None, prompt: str, seed: int) -> pd.DataFrame:
    """AUROC and average precision of each trigger statistic, with intervals, against both outcomes."""
    outcomes = {"PT was wrong": ~stats["correct"].to_numpy(bool)}
    if fixes is not None:
        outcomes["corruption fixes it"] = stats["instance"].map(fixes).to_numpy(bool)
    rows = [
        {"task": stats["task"].iloc[0], "prompt": prompt, "statistic": name, "outcome": outcome}
        | ranking(labels, stats[name].to_numpy(float), seed)
        for outcome, labels in outcomes.items()
        for name in TRIGGER_STATISTICS
    ]
    return pd.DataFrame(rows)
