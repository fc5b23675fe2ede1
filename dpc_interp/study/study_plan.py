"""`StudyPlan`: what a study generates and reads, and about how long it takes, before it runs.

Counts are upper bounds: a triggered method is counted as if it fired on every problem. A text is taken to be as long as
the written rationale, or as the length at which texts are cut off where there is none. Seconds are those of one worker,
from `measure_costs`; a pass of a knock-out, which needs the attention patterns, is counted as one of the analysis.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd
import torch

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
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.evaluated import StudySettings, StudyTask

TIMED_TOKENS = 16
"""Tokens of each text that `measure_costs` generates."""
N_TIMED = 8
"""Texts that `measure_costs` reads."""
CONTROLS = ("control prompts", "knock-outs", "sanity checks", "heads of ACT", "sweeps")
"""Parts whose problems `ControlSizes` counts."""


@dataclass(frozen=True)
class Costs:
    """What a model costs on its device.

    Attributes:
        decode: seconds for each generated token, in batches of the study's size.
        read: seconds for each position of a forward and a backward pass with the sums of the analysis.
    """

    decode: float
    read: float


@dataclass(frozen=True)
class StudyPlan:
    """What a study computes; see `Study.plan`.

    Attributes:
        parts: one row per task and part: task, part, jobs (that workers can share), texts (generated), passes (of the
            analysis or a knock-out), tokens (generated), positions (read), hours (of one worker).
        sizes: of the controls.
        memory: of the analysis.
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

    def wall_hours(self, n_workers: int) -> float:
        """Hours until the last worker is finished: an equal share of the work, or the longest chain if it is longer.

        Args:
            n_workers: workers, each with a model of its own.
        """
        return max(self.longest_hours, self.hours / n_workers)

    def within(self, minutes: float) -> ControlSizes:
        """Sizes of the controls with which the study ends within a time; none is larger than the planned one.

        Args:
            minutes: for everything, controls included.

        Raises:
            DPCInterpError: the rest of the study takes longer.

        Example:
            >>> import dpc_interp as dpc
            >>> made = dpc.study("reasoner", "story", "reasoner/story", n=4, n_validation=4, progress=False)
            >>> made.plan().within(minutes=600) == dpc.ControlSizes()
            True
        """
        is_control = self.parts["part"].isin(CONTROLS)
        controls, rest = (float(self.parts.loc[mask, "hours"].sum()) for mask in (is_control, ~is_control))
        left = minutes / 60 * self.n_workers - rest
        share = min(1.0, left / controls)
        sizes = {field.name: max(1, int(share * getattr(self.sizes, field.name))) for field in fields(self.sizes)}
        if left <= 0:
            raise DPCInterpError(
                f"without controls the study takes about {60 * rest / self.n_workers:.0f} minutes; give more than "
                f"{minutes:g}, or a smaller n or n_validation"
            )
        return replace(self.sizes, **sizes)

    def __str__(self) -> str:
        table = self.parts.assign(minutes=(60 * self.parts["hours"]).map("{:.1f}".format)).drop(columns="hours")
        workers = f"{self.n_workers} worker{'s' * (self.n_workers > 1)}"
        return (
            f"{markdown(table)}\n\nAt most about {60 * self.wall_hours(self.n_workers):.0f} minutes on {workers}, at "
            f"{1e3 * self.costs.decode:.3g} ms a generated token and {1e3 * self.costs.read:.3g} ms a position that is "
            f"read. In the analysis {self.memory}."
        )


def plan_study(
    model: HookedModel,
    settings: StudySettings,
    tasks: Sequence[StudyTask],
    sizes: ControlSizes,
    *,
    costs: Costs | None = None,
    n_workers: int = 1,
) -> StudyPlan:
    """Count what a study computes.

    Args:
        model: of the study.
        settings: of the study.
        tasks: of the study.
        sizes: of the controls.
        costs: of the model; None: a few texts are generated and read to measure them.
        n_workers: that share the jobs.
    """
    costs = costs or measure_costs(model, settings, tasks[0])
    rows, lengths = [], []
    for task in tasks:
        n_read, n_written = text_length(model, settings, task)
        lengths.append(n_read + n_written)
        for part, jobs, texts, passes in count_parts(model, task, sizes):
            tokens, positions = texts * n_written, passes * (n_read + n_written)
            hours = (tokens * costs.decode + positions * costs.read) / 3600
            rows.append((task.name, part, jobs, texts, passes, tokens, positions, hours))
    names = ["task", "part", "jobs", "texts", "passes", "tokens", "positions", "hours"]
    memory = plan_memory(model, [max(lengths)] * settings.run.batch_size)
    return StudyPlan(pd.DataFrame(rows, columns=names), sizes, memory, costs, n_workers)


def count_parts(model: HookedModel, task: StudyTask, sizes: ControlSizes) -> Iterator[tuple[str, int, int, int]]:
    """The parts of one task, each as its name, jobs, generated texts and passes.

    Args:
        model: of the study.
        task: with its prompts.
        sizes: of the controls.
    """
    n, n_validation, n_prompts = len(task.test), len(task.validation), len(task.prompts)
    n_virtual = max(prompt.n_virtual for prompt in task.prompts)
    # methods that corrupt the same tokens share their texts
    n_own = len(set(METHODS) - set(SHARED_METHODS) - set(TRIGGERED)) + len({what for _, what in TRIGGERED.values()})
    yield "answers", n_prompts, n_prompts * (n_own * n + n_validation) + len(SHARED_METHODS) * n, 0
    yield "analysis", n_prompts, 0, n_prompts * (n + n_validation)
    yield "control prompts", n_prompts, 0, n_prompts * len(CONDITIONS) * min(n, sizes.n_sinks)
    # the rest is of the first prompt, one job
    cfg, n_causal, n_sweep = model.cfg, min(n, sizes.n_causal), min(n, sizes.n_sweep)
    yield "knock-outs", 1, 0, n_causal * n_causal_passes(cfg.n_layers)
    yield "sanity checks", 1, 0, n_causal * (cfg.n_layers + 2)
    yield "heads of ACT", 1, 0, min(n_validation, sizes.n_heads) * (cfg.n_layers * cfg.n_heads + 1)
    n_values = sum(len(SWEPT_VALUES[option]) - 1 for option in ("gamma", "mask", "shallow"))
    n_reanalysed = sum(len(SWEPT_VALUES[option]) - 1 for option in ("head_reduction", "target"))
    n_both = n_sweep + n_validation
    texts = n_sweep * (1 + len(VARIANTS) + 1 + n_virtual) + n_values * n_both
    yield "sweeps", 1, texts, (1 + n_reanalysed) * n_both


def text_length(model: HookedModel, settings: StudySettings, task: StudyTask) -> tuple[int, int]:
    """Mean positions before a text, and mean tokens of a text.

    Args:
        model: of the study.
        settings: of the study.
        task: whose validation problems are read.
    """
    problems, prompt = list(task.validation), task.prompts[0]
    text = settings.options.text.for_prompt(prompt.recipe)
    questions = encode_questions(model, problems, prompt.n_virtual, 0, given=text.question_format)
    longest = settle_max_new_tokens(model, problems, prompt.n_virtual, text)
    written = [
        min(longest, len(encode_rationale(model, problem.rationale))) if problem.rationale.strip() else longest
        for problem in problems
    ]
    return prompt.n_virtual + round(sum(map(len, questions)) / len(questions)), round(sum(written) / len(written))


def measure_costs(model: HookedModel, settings: StudySettings, task: StudyTask) -> Costs:
    """Time a few tokens of a batch of the study's size, and the analysis of a few texts.

    Args:
        model: of the study.
        settings: of the study.
        task: whose validation problems are answered.
    """
    problems, prompt = list(task.validation), task.prompts[0]
    while len(problems) < settings.run.batch_size:  # a batch of the study is full
        problems = problems + problems
    options = settings.options
    problems = [replace(problem, id=str(k)) for k, problem in enumerate(problems[: settings.run.batch_size])]
    keywords: dict[str, Any] = {"template": options.template, "prepend_bos": options.prepend_bos, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedWarning)  # they are meant to be cut off
        generate(model, problems[:1], prompt, max_new_tokens=1, **keywords)  # first calls take longer
        start = _now(model)
        runs = generate(model, problems, prompt, max_new_tokens=TIMED_TOKENS, **keywords)
    decode = (_now(model) - start) / max(1, sum(len(run.generated_tokens) for run in runs))
    read = drop_empty_rationales(model, runs)[:N_TIMED]
    if not read:
        raise DPCInterpError("no text has a rationale, so the analysis cannot be timed; give costs=")
    start = _now(model)
    analyse(model, read, prompt, head_reduction=options.head_reduction, progress=False)
    positions = sum(prompt.n_virtual + len(run.tokens) for run in read)
    return Costs(decode, (_now(model) - start) / positions)


def _now(model: HookedModel) -> float:
    """The time when everything that was started on the model's device is finished."""
    if str(model.cfg.device).startswith("cuda"):
        torch.cuda.synchronize(model.cfg.device)
    return time.perf_counter()
