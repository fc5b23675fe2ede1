"""What a study is given: the model by its name, prompts by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import Prompts, load_prompts
from dpc_interp.execution.engine import process_source
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import load_model
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem


def load_for_engine(
    model: str | Path | HookedModel, run: RunConfig, load_options: Mapping[str, Any] | None
) -> HookedModel:
    """The model, loaded; raise for one that the engine cannot use.

    Args:
        model: a name or path, or a loaded model.
        run: how the study is run.
        load_options: keywords of `load_model`, where the model is given by its name.
    """
    keywords = {name: value for name, value in (load_options or {}).items() if value is not None}
    if isinstance(model, str | Path):
        model = load_model(model, **({"device": "cpu"} if run.engine == "processes" else {}) | keywords)
    elif keywords:
        raise DPCInterpError("load_options are for a model that is given by its name; this one is loaded")
    if run.engine == "processes":
        process_source(model)
    return model


def name_of_model(model: str | Path | HookedModel) -> str:
    """The name of a model; of a path its last part.

    Args:
        model: a name or path, or a loaded model.
    """
    if isinstance(model, str | Path):
        return Path(model).expanduser().name if Path(model).expanduser().exists() else str(model)
    return str(model.cfg.model_name)


def with_prompts(
    by_task: Mapping[str, Mapping[str, Sequence[Problem]]], prompts: Prompts | Mapping[str, Prompts]
) -> Iterator[tuple[str, Mapping[str, Sequence[Problem]], list[SoftPrompt]]]:
    """The tasks with their problems and loaded prompts; raise unless both name the same tasks.

    Args:
        by_task: name of a task -> its problems by split.
        prompts: of all tasks, or by task.
    """
    by_name = prompts if isinstance(prompts, Mapping) else dict.fromkeys(by_task, prompts)
    for name in by_name.keys() - by_task.keys():
        raise DPCInterpError(f"there are prompts for {name!r}, but no problems; tasks: {', '.join(by_task)}")
    for name, by_split in by_task.items():
        if name not in by_name:
            raise DPCInterpError(f"there is no prompt for {name!r}; prompts are given for: {', '.join(by_name)}")
        yield name, by_split, load_prompts(by_name[name])
