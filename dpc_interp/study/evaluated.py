"""A task evaluated with one prompt: the smallest part of a study, from which its figures are drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.trigger import TriggerRule
from dpc_interp.errors import OneOutcomeError, UnknownNameError, warn_user
from dpc_interp.evaluation.evaluate import Results, evaluate
from dpc_interp.evaluation.methods import METHODS, SHARED_METHODS
from dpc_interp.evaluation.summary import summarise
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.generation.transcript import Transcript
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem


@dataclass(frozen=True)
class StudyTask:
    """A task of a study.

    Attributes:
        name: of the task.
        test: problems that are reported.
        validation: problems that calibrate and select.
        prompts: tuned for the task; figures show the first one.
    """

    name: str
    test: Sequence[Problem]
    validation: Sequence[Problem]
    prompts: Sequence[SoftPrompt]


def sizes_of(tasks: Sequence[StudyTask]) -> tuple[str, str]:
    """The numbers of test and of validation problems of a task in words, `500` or `30, 40`."""
    sizes = ({len(task.test) for task in tasks}, {len(task.validation) for task in tasks})
    test, validation = (", ".join(map(str, sorted(of_split))) for of_split in sizes)
    return test, validation


@dataclass(frozen=True)
class EvaluatedPrompt:
    """A task evaluated with one prompt.

    Attributes:
        prompt: that was evaluated.
        results: results of `evaluate`.
    """

    prompt: SoftPrompt
    results: Results

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.results.task

    @property
    def shallow(self) -> tuple[int, ...]:
        """The layers where the accumulation token is found."""
        return tuple(self.results.options.shallow or shallow_layers(self.results.analysis.n_layers))

    @property
    def sinks(self) -> tuple[int, ...]:
        """The virtual tokens that are left out as attention sinks."""
        return self.results.analysis.sinks if self.results.options.exclude_sink else ()

    @property
    def deep(self) -> tuple[int, ...]:
        """The layers that the trigger reads."""
        return tuple(self.results.options.deep or deep_layers(self.results.analysis.n_layers))


@dataclass(frozen=True)
class StudySettings:
    """What all jobs of a study share.

    Attributes:
        folder: of the finished stages; None: nothing is stored.
        options: what is computed.
        run: how it is run; its `out` is not used.
    """

    folder: Path | None
    options: Options
    run: RunConfig

    def evaluate(
        self, model: HookedModel, task: StudyTask, prompt: SoftPrompt, *, with_shared: bool
    ) -> EvaluatedPrompt:
        """Evaluate one prompt of a task with every method.

        Args:
            model: of the study.
            task: its problems are answered, its validation problems calibrate.
            prompt: one of its prompts.
            with_shared: also answer the problems by the methods that do not read the prompt.
        """
        methods = [method for method in METHODS if with_shared or method not in SHARED_METHODS]
        folder = folder_name(task.name, prompt.name)
        try:
            calibration: dict[str, Any] = {"validation": task.validation, "run": self.run_in(folder)}
            results = evaluate(model, task.test, prompt, methods, options=self.options, **calibration)
        except OneOutcomeError:  # the rest of the study does not need a trigger
            warn_user(
                f"{task.name}, {prompt.name}: every validation answer has the same outcome, so that no trigger can be "
                "calibrated and no claim about it is testable; give harder or easier validation problems"
            )
            calibration = {"rule": no_trigger(self.options, task), "run": self.run_in(f"{folder}-no-trigger")}
            options = replace(self.options, alpha_offset=0.0)  # there is no threshold to move
            results = evaluate(model, task.test, prompt, methods, options=options, **calibration)
        return EvaluatedPrompt(prompt, results)

    def run_in(self, name: str) -> RunConfig:
        """How one job is run, with its stages in a folder of this name."""
        out = None if self.folder is None else self.folder / name
        # a study reports no costs
        speculate = True if self.run.speculate_from_gold is None else self.run.speculate_from_gold
        run = replace(self.run, out=out, speculate_from_gold=speculate)
        if run.engine == "local":
            return run
        # a job computes its shards itself, and bars of several processes would overwrite each other
        return replace(run, engine="local", n_workers=None, progress=False)


@dataclass(frozen=True)
class EvaluatePrompt:
    """The job that evaluates one prompt; see `StudySettings.evaluate`."""

    settings: StudySettings
    task: StudyTask
    prompt: SoftPrompt
    with_shared: bool

    def __call__(self, model: HookedModel) -> EvaluatedPrompt:
        """Evaluate the prompt, or read what is stored."""
        return self.settings.evaluate(model, self.task, self.prompt, with_shared=self.with_shared)


def folder_name(*parts: str) -> str:
    """A name for a folder: the parts with hyphens between them and in place of what a path may not contain."""
    return re.sub(r"[^\w.,+-]+", "-", "-".join(parts)).strip("-.") or "unnamed"


def no_trigger(options: Options, task: StudyTask) -> TriggerRule:
    """A rule that never fires, where all validation answers have the same outcome; no claim about it is testable."""
    criterion = "none, all validation answers have the same outcome"
    return TriggerRule(options.statistic, float("inf"), criterion, "validation", len(task.validation), 0, 0.0, 1.0)


def add_shared_answers(part: EvaluatedPrompt, first: EvaluatedPrompt) -> EvaluatedPrompt:
    """Add the answers of the methods that do not read the prompt, which only the first prompt of a task has.

    Their column `changed` compares with the text under the first prompt.

    Args:
        part: any prompt of the task.
        first: the prompt of the task that has these methods. A part that has them already is returned unchanged.
    """
    if set(SHARED_METHODS) <= set(part.results.instances["method"]):
        return part
    results, answers = part.results, first.results.instances
    shared = answers[answers["method"].isin(SHARED_METHODS)].assign(prompt=results.prompt)
    instances = pd.concat([shared, results.instances], ignore_index=True)
    summary = summarise(instances, seed=results.options.seed)
    summary.insert(0, "task", part.task)
    return replace(part, results=replace(results, instances=instances, summary=summary))


def find_run(
    parts: Sequence[EvaluatedPrompt], instance: str, task: str | None, prompt: str | None
) -> tuple[EvaluatedPrompt, Transcript]:
    """The transcript of an instance, with the evaluated prompt that it belongs to.

    Args:
        parts: evaluated prompts.
        instance: id of a test problem.
        task: its task; None: any.
        prompt: name of the prompt; None: any.

    Raises:
        UnknownNameError: there is no such task, prompt or instance.
    """
    for kind, name, name_of in (("task", task, attrgetter("task")), ("prompt", prompt, attrgetter("prompt.name"))):
        same = [part for part in parts if name in (None, name_of(part))]
        if not same:
            raise UnknownNameError(kind, name, list(dict.fromkeys(map(name_of, parts))))
        parts = same
    for part in parts:
        for run in part.results.runs:
            if run.problem.id == instance:
                return part, run
    raise UnknownNameError("instance", instance, [run.problem.id for run in parts[0].results.runs])
