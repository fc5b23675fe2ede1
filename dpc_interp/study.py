"""One study: a task evaluated with one of its bundled prompts; what every figure and table is drawn from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dpc_interp.analysis.accumulation import deep_layers, shallow_layers
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.methods import METHODS, Results, evaluate
from dpc_interp.evaluation.statistics import summarise
from dpc_interp.evaluation.store import digest
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import bundled_prompts, load_prompt
from dpc_interp.prompts import recipes_of


@dataclass(frozen=True)
class Study:
    """A task evaluated with one prompt."""

    model: str
    task: str
    prompt: str
    results: Results

    @property
    def shallow(self) -> tuple[int, ...]:
        """The shallow layers of its model."""
        return shallow_layers(self.results.analysis.n_layers)

    @property
    def deep(self) -> tuple[int, ...]:
        """The deep layers of its model."""
        return deep_layers(self.results.analysis.n_layers)


def evaluate_study(
    model: str, task: str, prompt: str, *, n: int, n_validation: int, batch_size: int, runs: Path, base: bool = True
) -> Study:
    """Evaluate one bundled prompt on its task's test split, calibrated on its validation split.

    Args:
        n, n_validation: problems of each split, seed 0.
        runs: the folder whose subfolder of the prompt's name keeps the stages.
        base: answer without the prompt too.
    """
    recipe = recipes_of(model)[task]
    results = evaluate(
        load_model(model, device="cpu"),
        recipe.load("test", n, seed=0),
        load_prompt(prompt),
        methods=[method for method in METHODS if base or method != "base"],
        out=runs / prompt.replace("/", "-"),
        validation=recipe.load("validation", n_validation, seed=0),
        batch_size=batch_size,
        draft_rationales=True,
        progress=False,
    )
    return Study(model, task, prompt, results)


def prompts_of(model: str, tasks: Sequence[str] | None, seeds: int | None) -> dict[str, list[str]]:
    """By task, the names of the model's bundled prompts: all tasks and all tuning seeds where None.

    Raises:
        DPCInterpError: a model or a task that has none.
    """
    known = recipes_of(model)
    found: dict[str, list[str]] = {}
    for task in tasks or known:
        if task not in known:
            raise UnknownNameError(f"task of {model}", task, list(known))
        found[task] = bundled_prompts(f"{model}/{task}/")[:seeds]
        if not found[task]:
            raise DPCInterpError(f"there is no prompt for {model}/{task} yet; run make prompts MODEL={model}")
    return found


def with_base(done: Study, first: Study) -> Study:
    """The study with the bare model's answers, which the task's first study has."""
    if done is first:
        return done
    results, base = done.results, first.results.instances.query("method == 'base'")
    named = base.assign(prompt=results.instances["prompt"].iloc[0])
    instances = pd.concat([named, results.instances], ignore_index=True)
    summary = summarise(instances)
    summary.insert(0, "task", done.task)
    return replace(done, results=replace(results, instances=instances, summary=summary))


def kept_in(runs: Path, model: str, n: int, n_validation: int) -> Path:
    """The folder of all stages of a model's studies: another size, or other code, is another folder."""
    package = Path(__file__).parent
    code = digest(*(file.read_bytes() for file in sorted(package.rglob("*.py"))))
    return runs / f"{model}-{n}-{n_validation}-{code}"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of whatever draws a model's studies."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="reasoner")
    parser.add_argument("--out", type=Path, default=Path("figures/reasoner"))
    parser.add_argument(
        "--tasks", nargs="+", help="default: all that the model has prompts for; the first one's figures lie in --out"
    )
    parser.add_argument("--seeds", type=int, help="tuning seeds of each task; default: all")
    parser.add_argument("--n", type=int, default=500, help="test instances a task")
    parser.add_argument("--n-validation", type=int, default=150, help="instances that calibrate and select")
    parser.add_argument("--batch-size", type=int, default=256, help="questions decoded together")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where finished stages are kept")
    return parser
