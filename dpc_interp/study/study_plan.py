"""`StudyPlan`: what a study generates and reads, and about how long it takes, before it runs.

A triggered method is counted as if it fired on every problem. A text is taken to be as long as the written rationale,
or as the length at which texts are cut off where there is none. Seconds are those of one worker, from `measure_costs`;
a pass of a knock-out, which has no backward pass, is counted as one of the analysis.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import analyse, drop_empty_rationales
from dpc_interp.analysis.controls import CONDITIONS
from dpc_interp.claims.causal import n_causal_passes
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.methods import METHODS, SHARED_METHODS, TRIGGERED
from dpc_interp.evaluation.sweeps import SWEPT_VALUES, VARIANTS
from dpc_interp.evaluation.tables import markdown
from dpc_interp.execution.memory_plan import MemoryPlan, plan_memory
from dpc_interp.generation.generate import generate
from dpc_interp.generation.stopping import UnfinishedWarning
from dpc_interp.generation.text_options import settle_max_new_tokens
from dpc_interp.models.encoding import encode_questions, encode_rationale
from dpc_interp.models.hooked import HookedModel
from dpc_interp.repr_html import card, table_block
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.evaluated import StudySettings, StudyTask

TIMED_TOKENS = 16
"""Tokens of each text that `measure_costs` generates."""
N_TIMED = 8
"""Texts that `measure_costs` analyses."""
MINUTES = ("minutes", "limit_minutes")
"""Columns of a printed plan."""


@dataclass(frozen=True)
class Costs:
    """What a model costs on its device.

    Attributes:
        prefill: seconds for each position before a text, in batches of the study's size.
        decode: seconds for each generated token, in batches of the study's size.
        read: seconds for each position of a forward and a backward pass with the sums of the analysis.
    """

    prefill: float
    decode: float
    read: float


@dataclass(frozen=True)
class StudyPlan:
    """What a study computes; see `Study.plan`.

    Attributes:
        parts: one row per task and part: task, part, jobs (that workers can share), texts (generated), passes (of the
            analysis or a knock-out), tokens (generated), positions (of the passes), hours (of one worker), limit_hours
            (those if no text ends before the length at which it is cut off).
        sizes: of the controls.
        memory: of the analysis of the longest texts.
        costs: from which the hours follow.
        n_workers: that share the jobs.
    """

    parts: pd.DataFrame
    sizes: ControlSizes
    memory: MemoryPlan
    costs: Costs
    n_workers: int = 1

    @property
    def hours(self) -> float:
        """Hours of one worker."""
        return float(self.parts["hours"].sum())

    @property
    def longest_hours(self) -> float:
        """Hours of the first prompt of a task, the longest chain of work that no two workers can share."""
        each = self.parts["hours"] / self.parts["jobs"]
        return float(each.groupby(self.parts["task"]).sum().max())

    @property
    def at_limit(self) -> StudyPlan:
        """The same plan if no text ends before the length at which it is cut off."""
        return replace(self, parts=self.parts.assign(hours=self.parts["limit_hours"]))

    def wall_hours(self, n_workers: int | None = None) -> float:
        """Hours until the last worker is finished: an equal share of the work, or the longest chain if it is longer.

        Args:
            n_workers: workers, each with a model of its own; None: those of the plan.
        """
        return max(self.longest_hours, self.hours / (n_workers or self.n_workers))

    def _repr_html_(self) -> str:
        *_, text = str(self).splitlines()
        return card("StudyPlan", {}, table_block(self.parts), note=text)

    def __str__(self) -> str:
        minutes = {name: (60 * self.parts[name.replace("minutes", "hours")]).map("{:.1f}".format) for name in MINUTES}
        table = self.parts.drop(columns=["hours", "limit_hours"]).assign(**minutes)
        workers = f"{self.n_workers} worker{'s' * (self.n_workers > 1)}"
        prefill, decode, read = (f"{1e3 * seconds:.3g} ms" for seconds in astuple(self.costs))
        expected, at_limit = (60 * plan.wall_hours() for plan in (self, self.at_limit))
        return (
            f"{markdown(table)}\n\nAbout {expected:.0f} minutes on {workers} if texts are as long as the written ones, "
            f"and {at_limit:.0f} (limit_minutes) if none ends before it is cut off, at {prefill} a position before a "
            f"text, {decode} a generated token and {read} a position of a pass. In the analysis {self.memory}."
        )


def plan_study(
    model: HookedModel,
    settings: StudySettings,
    tasks: Sequence[StudyTask],
    sizes: ControlSizes,
    *,
    costs: Costs | None = None,
    n_workers: int = 1,
    minutes: float | None = None,
) -> StudyPlan:
    """Count what a study computes.

    Args:
        model: of the study.
        settings: of the study.
        tasks: of the study.
        sizes: of the controls.
        costs: of the model; None: a few texts are generated and read to measure them.
        n_workers: that share the jobs.
        minutes: the sizes shrink until the study takes at most this time; None: they stay.

    Raises:
        DPCInterpError: not even controls of one problem fit into `minutes`.
    """
    costs = costs or measure_costs(model, settings, tasks[0])
    lengths = [text_lengths(model, settings, task) for task in tasks]
    longest = max(max(n_read) + limit for n_read, _, limit in lengths)
    memory = plan_memory(model, [longest] * settings.run.batch_size)

    def plan(sizes: ControlSizes) -> StudyPlan:
        rows = []
        for task, (read_lengths, n_written, limit) in zip(tasks, lengths, strict=True):
            n_read = round(sum(read_lengths) / len(read_lengths))
            for part, jobs, texts, passes in count_parts(model, task, sizes):
                tokens, positions = texts * n_written, passes * (n_read + n_written)
                hours, limit_hours = (
                    (texts * (n_read * costs.prefill + length * costs.decode) + passes * (n_read + length) * costs.read)
                    / 3600
                    for length in (n_written, limit)
                )
                rows.append((task.name, part, jobs, texts, passes, tokens, positions, hours, limit_hours))
        names = ["task", "part", "jobs", "texts", "passes", "tokens", "positions", "hours", "limit_hours"]
        return StudyPlan(pd.DataFrame(rows, columns=names), sizes, memory, costs, n_workers)

    if minutes is None:
        return plan(sizes)
    # a size above the number of problems is the same as that number
    largest = max(max(len(task.test), len(task.validation)) for task in tasks)
    clipped = {field.name: min(largest, getattr(sizes, field.name)) for field in fields(sizes)}
    shares = [k / 100 for k in range(100, -1, -1)]
    plans = (plan(ControlSizes(**{name: max(1, int(k * size)) for name, size in clipped.items()})) for k in shares)
    fitting = next((planned for planned in plans if 60 * planned.wall_hours() <= minutes), None)
    if fitting is None:
        smallest = 60 * plan(ControlSizes(*([1] * len(clipped)))).wall_hours()
        raise DPCInterpError(
            f"with controls of one problem the study takes about {smallest:.0f} minutes; give more than {minutes:g}, "
            "or a smaller n or n_validation"
        )
    return fitting


def count_parts(model: HookedModel, task: StudyTask, sizes: ControlSizes) -> Iterator[tuple[str, int, int, int]]:
    """The parts of one task, each as its name, jobs, generated texts and passes.

    Args:
        model: of the study.
        task: with its prompts.
        sizes: of the controls.
    """
    n, n_validation, n_prompts = len(task.test), len(task.validation), len(task.prompts)
    # methods that corrupt the same tokens share their texts
    n_own = len(set(METHODS) - set(SHARED_METHODS) - set(TRIGGERED)) + len({what for _, what in TRIGGERED.values()})
    yield "answers", n_prompts, n_prompts * (n_own * n + n_validation), 0
    yield "analysis", n_prompts, 0, n_prompts * (n + n_validation)
    yield "control prompts", n_prompts, 0, n_prompts * len(CONDITIONS) * min(n, sizes.n_sinks)
    # the rest is done once, with the first prompt
    cfg, n_causal, n_sweep = model.cfg, min(n, sizes.n_causal), min(n, sizes.n_sweep)
    yield "answers without the prompt", 1, len(SHARED_METHODS) * n, 0
    yield "knock-outs", 1, 0, n_causal * n_causal_passes(cfg.n_layers)
    yield "sanity checks", 1, 0, n_causal * (cfg.n_layers + 2)
    yield "heads of ACT", 1, 0, min(n_validation, sizes.n_heads) * (cfg.n_layers * cfg.n_heads + 1)
    in_variants, elsewhere, analysed = (
        sum(len(SWEPT_VALUES[option]) - 1 for option in options)
        for options in (("gamma", "mask"), ("shallow", "head_reduction", "target"), ("head_reduction", "target"))
    )
    on_test = 1 + len(VARIANTS) + 1 + task.prompts[0].n_virtual  # PT, variants, ACT, single tokens
    on_validation = 2 + in_variants  # PT, the defaults
    n_both = n_sweep + n_validation
    yield (
        "sweeps",
        1,
        on_test * n_sweep + on_validation * n_validation + elsewhere * n_both,
        (1 + analysed) * n_both,
    )


def text_lengths(model: HookedModel, settings: StudySettings, task: StudyTask) -> tuple[list[int], int, int]:
    """Positions before each text, mean tokens of a text, and the length at which texts are cut off.

    Args:
        model: of the study.
        settings: of the study.
        task: whose problems are read.
    """
    problems, prompt = [*task.test, *task.validation], task.prompts[0]
    text = settings.options.text.for_prompt(prompt.recipe)
    n_read = [
        prompt.n_virtual + len(question)
        for question in encode_questions(model, problems, 0, 0, given=text.question_format)
    ]
    limit = settle_max_new_tokens(model, problems, prompt.n_virtual, text)
    written = [
        min(limit, len(encode_rationale(model, problem.rationale))) if problem.rationale.strip() else limit
        for problem in problems
    ]
    return n_read, round(sum(written) / len(written)), limit


def measure_costs(model: HookedModel, settings: StudySettings, task: StudyTask) -> Costs:
    """Time the first tokens of a batch of the study's size, and the analysis of a few texts.

    Both return on the CPU, so that they have ended on a GPU too.

    Args:
        model: of the study.
        settings: of the study.
        task: whose validation problems are answered.
    """
    options, prompt = settings.options, task.prompts[0]
    problems, size = list(task.validation), min(settings.run.batch_size, len(task.test))
    repeated = (problems * (size // len(problems) + 1))[:size]
    problems = [replace(problem, id=str(k)) for k, problem in enumerate(repeated)]
    keywords: dict[str, Any] = {"template": options.template, "prepend_bos": options.prepend_bos, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedWarning)  # they are meant to be cut off
        generate(model, problems[:1], prompt, max_new_tokens=1, **keywords)  # first calls take longer
        start = time.perf_counter()
        generate(model, problems, prompt, max_new_tokens=1, **keywords)
        prefill = time.perf_counter() - start
        start = time.perf_counter()
        runs = generate(model, problems, prompt, max_new_tokens=TIMED_TOKENS, **keywords)
        decode = time.perf_counter() - start - prefill
    prefill /= sum(prompt.n_virtual + len(run.question_tokens) for run in runs)
    # a generated token takes at least as long as a position that is read with others, whatever the noise of the clock
    decode = max(prefill, decode / max(1, sum(len(run.generated_tokens) - 1 for run in runs)))
    read = drop_empty_rationales(model, runs)[:N_TIMED]
    if not read:  # nothing that can be analysed was written; a backward pass takes about twice a forward pass
        return Costs(prefill, decode, 3 * prefill)
    seconds = 0.0
    for _ in range(2):  # the first pass takes longer
        start = time.perf_counter()
        analyse(model, read, prompt, head_reduction=options.head_reduction, progress=False)
        seconds = time.perf_counter() - start
    return Costs(prefill, decode, seconds / sum(prompt.n_virtual + len(run.tokens) for run in read))
