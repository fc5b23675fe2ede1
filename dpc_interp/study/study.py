"""A study: one task evaluated with one of its bundled prompts. Every figure and table is drawn from studies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.evaluate import Results, evaluate
from dpc_interp.evaluation.methods import METHODS, SHARED_METHODS
from dpc_interp.evaluation.summary import summarise
from dpc_interp.execution.digest import digest
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.loading import load_model
from dpc_interp.prompts.soft_prompt import bundled_prompts, load_prompt


@dataclass(frozen=True)
class Study:
    """A task evaluated with one prompt.

    Attributes:
        model: name of the model.
        task: name of the task.
        prompt: name of the prompt.
        results: results of `evaluate`.
    """

    model: str
    task: str
    prompt: str
    results: Results

    @property
    def shallow(self) -> tuple[int, ...]:
        """The first third of the layers, where the accumulation token is found."""
        return shallow_layers(self.results.analysis.n_layers)

    @property
    def deep(self) -> tuple[int, ...]:
        """The last third of the layers, which the trigger reads."""
        return deep_layers(self.results.analysis.n_layers)


@dataclass(frozen=True)
class StudySettings:
    """The settings that all studies of a model share.

    Attributes:
        model: name of a model with bundled prompts.
        n: test problems of each task (seed 0).
        n_validation: validation problems of each task (seed 0).
        batch_size: questions decoded together.
        runs: parent of `folder`.
    """

    model: str
    n: int
    n_validation: int
    batch_size: int
    runs: Path

    @property
    def folder(self) -> Path:
        """The folder of the finished stages; its name holds the sizes and a digest of the code.

        So a stage that other code computed is never read.
        """
        package = Path(__file__).parent.parent
        code = digest(*(file.read_bytes() for file in sorted(package.rglob("*.py"))))
        return self.runs / f"{self.model}-{self.n}-{self.n_validation}-{code}"

    def evaluate(self, task: str, prompt: str, *, with_shared: bool) -> Study:
        """Evaluate one bundled prompt on the test split of a task, calibrated on the validation split.

        Args:
            task: name of a task that the model has prompts for.
            prompt: name of a bundled prompt of the task.
            with_shared: also answer the problems by the methods that do not read the prompt.
        """
        recipe = recipes_of(self.model)[task]
        results = evaluate(
            load_model(self.model, device="cpu"),
            recipe.load("test", self.n, seed=0),
            load_prompt(prompt),
            [method for method in METHODS if with_shared or method not in SHARED_METHODS],
            validation=recipe.load("validation", self.n_validation, seed=0),
            run=RunConfig(
                out=self.folder / prompt.replace("/", "-"),
                batch_size=self.batch_size,
                speculate_from_gold=True,
                progress=False,
            ),
        )
        return Study(self.model, task, prompt, results)


def prompts_of(model: str, tasks: Sequence[str] | None, n_seeds: int | None) -> dict[str, list[str]]:
    """The names of a model's bundled prompts, by task.

    Args:
        model: name of a model with bundled prompts.
        tasks: names of the tasks; None: all that the model has prompts for.
        n_seeds: tuning seeds of each task, the first ones; None: all.

    Raises:
        DPCInterpError: a model or a task without prompts.
    """
    recipes = recipes_of(model)
    prompts: dict[str, list[str]] = {}
    for task in tasks or recipes:
        if task not in recipes:
            raise UnknownNameError(f"task of {model}", task, list(recipes))
        prompts[task] = bundled_prompts(f"{model}/{task}/")[:n_seeds]
        if not prompts[task]:
            raise DPCInterpError(f"no prompt for {model}/{task} yet; run make prompts MODEL={model}")
    return prompts


def add_shared_answers(study: Study, first: Study) -> Study:
    """Add the answers of the methods that do not read the prompt, which only the first study of a task computes.

    Their column `changed` compares with the text under the first prompt.

    Args:
        study: any study of the task.
        first: the study of the task that has these methods; it is returned unchanged.
    """
    if study is first:
        return study
    results, answers = study.results, first.results.instances
    shared = answers[answers["method"].isin(SHARED_METHODS)].assign(prompt=results.prompt)
    instances = pd.concat([shared, results.instances], ignore_index=True)
    summary = summarise(instances)
    summary.insert(0, "task", study.task)
    return replace(study, results=replace(results, instances=instances, summary=summary))


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The command-line options that `make figures` and `make verdicts` share.

    Args:
        description: of the command.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="reasoner", help="name of a model with bundled prompts")
    parser.add_argument("--out", type=Path, default=Path("figures/reasoner"), help="folder of figures and tables")
    parser.add_argument(
        "--tasks",
        nargs="+",
        help="default: all that the model has prompts for; the figures of the first one are written to --out itself",
    )
    parser.add_argument("--seeds", type=int, help="tuning seeds of each task; default: all")
    parser.add_argument("--n", type=int, default=500, help="test problems of each task")
    parser.add_argument("--n-validation", type=int, default=150, help="problems that calibrate and select")
    parser.add_argument("--batch-size", type=int, default=256, help="questions decoded together")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of finished stages, for later runs")
    return parser


def read_settings(args: argparse.Namespace) -> StudySettings:
    """The settings in the parsed command line of `build_parser`."""
    return StudySettings(args.model, args.n, args.n_validation, args.batch_size, args.runs)
