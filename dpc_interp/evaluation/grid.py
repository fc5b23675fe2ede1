"""A grid of evaluations: settings (model, task, prompt) times cells (options, methods) give tidy rows.

Cells share a folder, so a stage (answers, an analysis, one corrupted answer) is computed once, however many cells need
it, and an interrupted grid resumes. Everything that is named is loaded and checked before the first cell.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dpc_interp.analysis.layers import deep_layers, layer_range, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError, OneOutcomeError, UnknownNameError
from dpc_interp.evaluation.compare import analyse_pt, calibrate, check_problems, compare
from dpc_interp.evaluation.evaluate import N_VALIDATION, validation_problems
from dpc_interp.evaluation.methods import TRIGGERED, Contexts, check_methods, needs_placebo, needs_rule
from dpc_interp.evaluation.stages import Stages, problem_digest, prompt_digest
from dpc_interp.evaluation.summary import summarise
from dpc_interp.execution.digest import digest, model_digest
from dpc_interp.execution.engine import Engine
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.execution.store import SharedStore
from dpc_interp.generation.text_options import settle_max_new_tokens
from dpc_interp.interventions.option_plans import check_options, plans_from_options
from dpc_interp.models.encoding import encode_questions
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.soft_prompt import SoftPrompt, check_prompt, load_prompt
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import AnyProblems, as_problems, load_problems

SPLITS = ("test", "validation")
TEXT_OPTIONS = ("template", "prepend_bos", "stop_strings", "extraction")
"""Options that are columns of a grid's rows only where they are given."""
Models = AnyModel | Sequence[AnyModel]
Tasks = AnyProblems | Sequence[AnyProblems]
Prompts = str | Path | SoftPrompt | Sequence[str | Path | SoftPrompt]


@dataclass(frozen=True)
class Setting:
    """One model, prompt and task, in which every cell of a grid is measured; `problems` by split."""

    model_name: str
    model: HookedModel
    model_key: str
    prompt: SoftPrompt
    task: str
    problems: Mapping[str, Sequence[Problem]]

    def settled(self, options: Options) -> Options:
        """The options with the length at which texts are cut off, one for the problems of all splits."""
        text = options.text.for_prompt(self.prompt.recipe)
        length = settle_max_new_tokens(self.model, self.all_problems, self.prompt.n_virtual, text)
        return replace(options, max_new_tokens=length)

    def question_key(self, options: Options) -> str:
        """A hash of the token ids of every question."""
        given = options.text.for_prompt(self.prompt.recipe).question_format
        questions = encode_questions(self.model, self.all_problems, 0, 0, given=given)
        return digest(repr([question.tolist() for question in questions]).encode())

    @property
    def all_problems(self) -> list[Problem]:
        """The problems of every split."""
        return [problem for problems in self.problems.values() for problem in problems]


@dataclass(frozen=True)
class Cell:
    """What is measured in a setting: options, methods and contexts; `labels` are further columns of its rows."""

    options: Options
    methods: Sequence[str]
    contexts: Contexts = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ProblemSample:
    """Which problems a grid draws.

    Attributes:
        n: test problems of each named task.
        n_validation: validation problems of each named task.
        problem_seed: of both draws.
        validation: by task, the validation problems of tasks that have no validation split.
    """

    n: int = 200
    n_validation: int = N_VALIDATION
    problem_seed: int = 0
    validation: Mapping[str, Sequence[Problem]] = field(default_factory=dict)


def prepare(
    models: Models, tasks: Tasks, prompts: Prompts, cells: Sequence[Cell], splits: Sequence[str], sample: ProblemSample
) -> list[Setting]:
    """Load everything that a grid names, and raise `DPCInterpError` for what cannot be measured, before any work."""
    for split in splits:
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
    for cell in cells:
        check_methods(cell.methods, cell.contexts)
    calibrates = "validation" in splits or any(needs_rule(cell.methods) for cell in cells)
    problems = load_tasks(tasks, sample, calibrates)
    loaded_prompts = load_prompts(prompts)
    names = [str(m.cfg.model_name) if isinstance(m, HookedModel) else str(m) for m in _as_list(models)]
    _check_names("model", names)
    loaded_models = list(zip(names, map(as_model, _as_list(models)), strict=True))
    for (_, model), prompt, by_split in product(loaded_models, loaded_prompts, problems.values()):
        _check_setting(model, prompt, by_split, cells)
    keys = {name: model_digest(model) for name, model in loaded_models}
    return [
        Setting(name, model, keys[name], prompt, task, by_split)
        for (name, model), (task, by_split), prompt in product(loaded_models, problems.items(), loaded_prompts)
    ]


def load_tasks(tasks: Tasks, sample: ProblemSample, calibrates: bool = True) -> dict[str, dict[str, Sequence[Problem]]]:
    """Load the problems of every task.

    Args:
        tasks: names, lists of problems (each of one task) or rows of `load_problems`, one or several.
        sample: which problems are drawn.
        calibrates: whether validation problems are needed.

    Returns:
        Name of the task -> `test` and, if needed, `validation` -> problems.

    Raises:
        DPCInterpError: two tasks of the same name, no task, or no validation problems where they are needed.
    """
    problems = [_problems_by_split(task, sample, calibrates) for task in as_task_list(tasks)]
    names = [by_split["test"][0].task for by_split in problems]
    _check_names("task", names)
    return dict(zip(names, problems, strict=True))


def load_prompts(prompts: Prompts) -> list[SoftPrompt]:
    """Load every prompt that is given by a name or a path.

    Args:
        prompts: names, paths or loaded prompts, one or several. Prompts that were saved under the same name are named
            by their paths.

    Raises:
        DPCInterpError: two loaded prompts of the same name, no prompt, or what `load_prompt` refuses.
    """
    given = _as_list(prompts)
    loaded = [load_prompt(prompt) if isinstance(prompt, str | Path) else prompt for prompt in given]
    n_named = Counter(prompt.name for prompt in loaded)
    loaded = [
        replace(prompt, name=str(path)) if n_named[prompt.name] > 1 and isinstance(path, str | Path) else prompt
        for path, prompt in zip(given, loaded, strict=True)
    ]
    _check_names("prompt", [prompt.name for prompt in loaded])
    return loaded


def measure(
    settings: Sequence[Setting],
    cells_of: Callable[[Setting, Stages], Sequence[Cell]],
    splits: Sequence[str],
    run: RunConfig,
) -> pd.DataFrame:
    """The rows of the cells of every setting."""
    frames = []
    if run.speculate_from_gold is None:  # a grid reports no timings
        run = replace(run, speculate_from_gold=True)
    with run.open_engine() as engine:
        for setting in settings:
            stages = _open_stages(setting, run, engine)
            cells = cells_of(setting, stages)
            cells = [replace(cell, options=setting.settled(cell.options)) for cell in cells]
            for split in splits:
                missing = [cell for cell in cells if not stages.store.has_shards(_cell_stage(setting, cell, split))]
                _corrupt_ahead(setting, stages, missing, split)
            desc = f"{setting.task} {setting.prompt.name}"
            for cell in tqdm(cells, desc=desc, unit="cell", disable=not run.progress):
                for split in splits:
                    manifest = _cell_manifest(setting, cell, split)
                    name = _cell_stage(setting, cell, split)
                    rows = stages.store.stage(name, partial(_cell_rows, setting, stages, cell, split))
                    stages.store.write_manifest(name, manifest)
                    columns = _cell_columns(setting, cell, split)
                    frames.append(pd.DataFrame([columns] * len(rows), index=rows.index).join(rows))
    return pd.concat(frames, ignore_index=True)


def _open_stages(setting: Setting, run: RunConfig, engine: Engine) -> Stages:
    quiet = replace(run, progress=False)  # the bar over cells is enough
    return Stages(setting.model, SharedStore(run.out), setting.prompt, engine, quiet, model_key=setting.model_key)


def _corrupt_ahead(setting: Setting, stages: Stages, cells: Sequence[Cell], split: str) -> None:
    """Generate what cells corrupt in every problem, in common batches where one cell does not fill a batch."""
    problems = setting.problems[split]
    if len(problems) >= stages.run.batch_size:
        return
    by_text: dict[str, list[Cell]] = {}
    for cell in cells:
        if "always" in cell.methods:
            by_text.setdefault(repr(cell.options.text), []).append(cell)
    for same_text in by_text.values():
        plans = []
        for cell in same_text:
            pt, analysis = analyse_pt(stages, problems, cell.options, _prefix(split))
            plans.append(plans_from_options(cell.options, TRIGGERED["always"][1], analysis))
        stages.corrupt_ahead(pt, plans, same_text[0].options.text)


def _prefix(split: str) -> str:
    """The stages of the validation split are those that calibrate."""
    return "" if split == "test" else "validation-"


def _cell_rows(setting: Setting, stages: Stages, cell: Cell, split: str) -> pd.DataFrame:
    """`summarise` of one cell, the threshold of its trigger, and the reason why a method could not be measured."""
    rule, reason = None, ""
    if needs_rule(cell.methods):
        try:
            rule, _ = calibrate(stages, setting.problems["validation"], cell.options)
        except OneOutcomeError as error:  # other cells may have a trigger
            reason = str(error)
    without_trigger = [method for method in cell.methods if rule is None and needs_rule([method])]
    compared = compare(
        stages,
        setting.problems[split],
        [method for method in cell.methods if method not in without_trigger],
        rule,
        cell.options,
        prefix=_prefix(split),
        contexts=cell.contexts,
    )
    rows = summarise(compared.instances, seed=cell.options.seed)
    rows.insert(0, "threshold", float("nan") if rule is None else rule.threshold)
    rows = rows[rows["method"].isin([*cell.methods, *cell.contexts])].assign(reason="")
    if without_trigger:
        rows = pd.concat([rows, pd.DataFrame({"method": without_trigger, "reason": reason})])
    return rows.reset_index(drop=True)


def _cell_stage(setting: Setting, cell: Cell, split: str) -> str:
    """The name of the stage that stores the rows of a cell."""
    return f"cell-{digest(json.dumps(_cell_manifest(setting, cell, split), sort_keys=True).encode())}"


def _cell_manifest(setting: Setting, cell: Cell, split: str) -> dict[str, object]:
    """Everything that the rows of a cell depend on."""
    return cell.options.record() | {
        "questions": setting.question_key(cell.options),
        "methods": list(cell.methods),
        "contexts": {name: repr(context) for name, context in cell.contexts.items()},
        "split": split,
        "model": setting.model_key,
        "prompt": prompt_digest(setting.prompt),
        "prompt_name": setting.prompt.name,
        "problems": {name: problem_digest(setting.problems.get(name, ())) for name in SPLITS},
    }


def _cell_columns(setting: Setting, cell: Cell, split: str) -> dict[str, object]:
    n_layers = setting.model.cfg.n_layers
    defaults = Options().record()
    options = {
        name: value
        for name, value in cell.options.record().items()
        if name not in TEXT_OPTIONS or value != defaults[name]
    }
    options["deep"] = layer_range(cell.options.deep or deep_layers(n_layers))
    options["shallow"] = layer_range(cell.options.shallow or shallow_layers(n_layers))
    options |= {
        "token": str(cell.options.token),
        "beta": float("nan") if cell.options.beta is None else options["beta"],
    }
    setting_columns = {
        "model": setting.model_name,
        "task": setting.task,
        "prompt": setting.prompt.name,
        "split": split,
        "n_validation": len(setting.problems.get("validation", ())),
    }
    return {**cell.labels, **setting_columns, **options}


def _check_names(kind: str, names: list[str]) -> None:
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates or not names:
        reason = f"two of the {kind}s are named {duplicates[0]!r}" if duplicates else f"there is no {kind}"
        raise DPCInterpError(f"{reason}; give each {kind} its own name")


def _check_setting(
    model: HookedModel, prompt: SoftPrompt, by_split: Mapping[str, Sequence[Problem]], cells: Sequence[Cell]
) -> None:
    check_prompt(model, prompt.vectors)
    all_problems = [problem for problems in by_split.values() for problem in problems]
    for cell in cells:
        check_options(cell.options, model, prompt, all_problems, placebo=needs_placebo(cell.methods, cell.options))
        settle_max_new_tokens(model, all_problems, prompt.n_virtual, cell.options.text.for_prompt(prompt.recipe))


def _problems_by_split(
    task: str | Path | Sequence[Problem], sample: ProblemSample, calibrates: bool
) -> dict[str, Sequence[Problem]]:
    test = load_problems(task, "test", sample.n, sample.problem_seed) if isinstance(task, str | Path) else list(task)
    check_problems(test, ())
    if not calibrates:
        return {"test": test}
    validation = sample.validation.get(test[0].task)
    if validation is None:
        name = str(task) if isinstance(task, str | Path) else test[0].task
        validation = validation_problems(name, sample.n_validation, sample.problem_seed)
    check_problems(test, validation)
    return {"test": test, "validation": validation}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def as_task_list(tasks: Tasks) -> list[str | Path | list[Problem]]:
    """The tasks as a list, rows as problems; a list of problems or of rows is one task."""
    if isinstance(tasks, Mapping):
        return [as_problems(tasks)]
    listed = _as_list(tasks)
    if listed and all(isinstance(entry, Problem | Mapping) for entry in listed):
        listed = [listed]
    return [entry if isinstance(entry, str | Path) else as_problems(entry) for entry in listed]
