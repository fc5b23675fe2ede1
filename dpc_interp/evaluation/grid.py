"""Cells of a grid, measured: settings (model, task, prompt) x cells (options, methods) -> tidy rows.

Cells share a folder: a stage (answers, an analysis, one corrupted answer) is computed once, whatever number of cells
needs it, and what was stopped goes on. All that is named is loaded and checked before the first cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dpc_interp.analysis.accumulation import deep_layers, shallow_layers
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.compare import Contexts, calibrate, check_methods, check_problems, compare, needs_rule
from dpc_interp.evaluation.engine import Engine, check_engine, open_engine
from dpc_interp.evaluation.methods import validation_of
from dpc_interp.evaluation.options import Options
from dpc_interp.evaluation.stages import SHARD_SIZE, Stages, check_sizes, model_digest, problem_digest, prompt_digest
from dpc_interp.evaluation.statistics import summarise
from dpc_interp.evaluation.store import SharedStore, digest
from dpc_interp.lm.generation import questions_of
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import SoftPrompt, check_prompt, load_prompt
from dpc_interp.tasks.problems import Problem, load_problems

SPLITS = ("test", "validation")
Models = str | HookedModel | Sequence[str | HookedModel]
Tasks = str | Sequence[str] | Sequence[Problem] | Sequence[Sequence[Problem]]
Prompts = str | SoftPrompt | Sequence[str | SoftPrompt]
OPTIONS = tuple(option.name for option in fields(Options))


@dataclass(frozen=True)
class Setting:
    """One model, prompt and task: where every cell of a grid is measured. `problems`: by split."""

    model_name: str
    model: HookedModel
    model_key: str
    prompt: SoftPrompt
    task: str
    problems: Mapping[str, Sequence[Problem]]


@dataclass(frozen=True)
class Cell:
    """What is measured in a setting: options, methods and contexts; `labels` are further columns of its rows."""

    options: Options
    methods: Sequence[str]
    contexts: Contexts = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """Which problems: `n` of the test and `n_validation` of the validation split, drawn with `problem_seed`.

    `validation` gives, by task, the validation problems of tasks that have none of their own.
    """

    n: int = 200
    n_validation: int = 200
    problem_seed: int = 0
    validation: Mapping[str, Sequence[Problem]] = field(default_factory=dict)


@dataclass(frozen=True)
class How:
    """How a grid is computed; its rows do not depend on it. `out`: a folder that keeps what is finished."""

    out: str | Path | None = None
    batch_size: int = 128
    draft_rationales: bool = True
    progress: bool = True
    shard_size: int = SHARD_SIZE
    engine: str = "local"
    n_workers: int | None = None

    def __post_init__(self) -> None:
        check_sizes(self.batch_size, self.shard_size)
        check_engine(self.engine, self.n_workers)

    def stages(self, setting: Setting, engine: Engine) -> Stages:
        """The stages of a setting in the shared folder."""
        return Stages(
            setting.model,
            SharedStore(self.out),
            setting.prompt,
            engine,
            batch_size=self.batch_size,
            shard_size=self.shard_size,
            progress=False,
            model_key=setting.model_key,
        )


def make_options(changes: Mapping[str, Any]) -> Options:
    """`Options` of these values; an unknown name is refused, and layers may be any sequence."""
    for name in changes:
        if name not in OPTIONS:
            raise UnknownNameError("option", name, OPTIONS)
    layers = {name: tuple(changes[name]) for name in ("deep", "shallow") if changes.get(name) is not None}
    return Options(**{**changes, **layers})


def prepare(
    models: Models, tasks: Tasks, prompts: Prompts, cells: Sequence[Cell], splits: Sequence[str], draw: Draw
) -> list[Setting]:
    """Load all that a grid names, and refuse what cannot be measured, before any work."""
    for split in splits:
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
    for cell in cells:
        check_methods(cell.methods, cell.contexts)
    calibrated = "validation" in splits or any(needs_rule(cell.methods) for cell in cells)
    problems = [_problems(task, draw, calibrated) for task in _several_tasks(tasks)]
    loaded_prompts = [load_prompt(p) if isinstance(p, str) else p for p in _several(prompts)]
    named = [(m, load_model(m)) if isinstance(m, str) else (str(m.cfg.model_name), m) for m in _several(models)]
    kinds = {"model": [name for name, _ in named], "prompt": [p.name for p in loaded_prompts]}
    kinds["task"] = [of_task["test"][0].task for of_task in problems]
    for kind, names in kinds.items():
        twice = [name for name in names if names.count(name) > 1]
        if twice or not names:
            reason = f"two of the {kind}s are named {twice[0]!r}" if twice else f"there is no {kind}"
            raise DPCInterpError(f"{reason}; the rows need one name for each")
    for (_, model), prompt in product(named, loaded_prompts):
        check_prompt(model, prompt.vectors)
        for cell, of_task in product(cells, problems):
            cell.options.check(model, prompt, [p for of_split in of_task.values() for p in of_split])
        longest = max((cell.options.max_new_tokens for cell in cells), default=0)
        for of_split in (of_split for of_task in problems for of_split in of_task.values()):
            questions_of(model, of_split, prompt.n_virtual, longest)
    keys = {name: model_digest(model) for name, model in named}
    return [
        Setting(name, model, keys[name], prompt, task, of_task)
        for (name, model), (task, of_task), prompt in product(
            named, zip(kinds["task"], problems, strict=True), loaded_prompts
        )
    ]


def measure(
    settings: Sequence[Setting],
    cells_of: Callable[[Setting, Stages], Sequence[Cell]],
    splits: Sequence[str],
    how: How,
) -> pd.DataFrame:
    """The rows of the cells of every setting."""
    frames = []
    with open_engine(how.engine, how.n_workers) as engine:
        for setting in settings:
            stages = how.stages(setting, engine)
            cells = cells_of(setting, stages)
            where = f"{setting.task} {setting.prompt.name}"
            for cell in tqdm(cells, desc=where, unit="cell", disable=not how.progress):
                for split in splits:
                    made_with = _made_with(setting, cell, split)
                    name = f"cell-{digest(json.dumps(made_with, sort_keys=True).encode())}"
                    rows = stages.store.stage(name, partial(_rows, setting, stages, cell, split, how))
                    stages.store.describe(name, made_with)
                    told = _columns(setting, cell, split)
                    frames.append(pd.DataFrame([told] * len(rows), index=rows.index).join(rows))
    return pd.concat(frames, ignore_index=True)


def _rows(setting: Setting, stages: Stages, cell: Cell, split: str, how: How) -> pd.DataFrame:
    """`summarise` of one cell, and the threshold of its trigger."""
    rule = None
    if needs_rule(cell.methods):
        rule, _ = calibrate(stages, setting.problems["validation"], cell.options, how.draft_rationales)
    found = compare(
        stages,
        setting.problems[split],
        cell.methods,
        rule,
        cell.options,
        name="" if split == "test" else "validation-",  # the stages that calibrate
        contexts=cell.contexts,
        draft_rationales=how.draft_rationales,
    )
    rows = summarise(found.instances, seed=cell.options.seed)
    rows.insert(0, "threshold", float("nan") if rule is None else rule.threshold)
    return rows[rows["method"].isin([*cell.methods, *cell.contexts])].reset_index(drop=True)


def _made_with(setting: Setting, cell: Cell, split: str) -> dict[str, object]:
    """All that the rows of a cell depend on, as its manifest tells it."""
    return asdict(cell.options) | {
        "methods": list(cell.methods),
        "contexts": {name: repr(context) for name, context in cell.contexts.items()},
        "split": split,
        "model": setting.model_key,
        "prompt": prompt_digest(setting.prompt),
        "prompt_name": setting.prompt.name,
        "problems": {name: problem_digest(setting.problems.get(name, ())) for name in SPLITS},
    }


def _columns(setting: Setting, cell: Cell, split: str) -> dict[str, object]:
    n_layers = setting.model.cfg.n_layers
    options = asdict(cell.options)
    options["deep"] = layer_label(cell.options.deep or deep_layers(n_layers))
    options["shallow"] = layer_label(cell.options.shallow or shallow_layers(n_layers))
    options |= {
        "token": str(cell.options.token),
        "beta": float("nan") if cell.options.beta is None else options["beta"],
    }
    where = {"model": setting.model_name, "task": setting.task, "prompt": setting.prompt.name, "split": split}
    return {**cell.labels, **where, "n_validation": len(setting.problems.get("validation", ())), **options}


def layer_label(layers: Sequence[int]) -> str:
    """`4`, `4-5` or `0,2`."""
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(map(str, layers))


def _problems(task: str | Sequence[Problem], draw: Draw, calibrated: bool) -> dict[str, Sequence[Problem]]:
    """The problems of a task by split."""
    test = load_problems(task, "test", draw.n, draw.problem_seed) if isinstance(task, str) else list(task)
    check_problems(test, ())
    if not calibrated:
        return {"test": test}
    validation = draw.validation.get(test[0].task)
    if validation is None:
        name = task if isinstance(task, str) else test[0].task
        validation = validation_of(name, draw.n_validation, draw.problem_seed)
    check_problems(test, validation)
    return {"test": test, "validation": validation}


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _several_tasks(tasks: Tasks) -> list[Any]:
    listed = _several(tasks)
    return [listed] if listed and all(isinstance(entry, Problem) for entry in listed) else listed
