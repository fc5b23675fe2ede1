"""The studies of the bundled models, from which the figures and verdicts of this repository come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.execution.digest import digest
from dpc_interp.prompts.soft_prompt import bundled_prompts, load_prompt
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.study import Study, study


def bundled_study(
    model: str = "reasoner",
    tasks: Sequence[str] | None = None,
    n_seeds: int | None = None,
    *,
    n: int = 500,
    n_validation: int = 150,
    batch_size: int = 256,
    runs: Path = Path("runs"),
    sizes: ControlSizes | None = None,
) -> Study:
    """The study of a bundled model and its prompts, one process a core.

    Args:
        model: name of a model with bundled prompts.
        tasks: names of tasks; None: all that the model has prompts for.
        n_seeds: tuning seeds of each task, the first ones; None: all.
        n: test problems of each task (seed 0).
        n_validation: problems of each task that calibrate and select (seed 0).
        batch_size: questions decoded together.
        runs: parent of the folder of finished stages. That folder is named by the sizes and a digest of the code, so
            that a stage that other code computed is never read.
        sizes: of the controls.

    Raises:
        DPCInterpError: a model or a task without prompts.
    """
    recipes = recipes_of(model)
    chosen = list(tasks or recipes)
    prompts = {}
    for task in chosen:
        if task not in recipes:
            raise UnknownNameError(f"task of {model}", task, list(recipes))
        names = bundled_prompts(f"{model}/{task}/")[:n_seeds]
        if not names:
            raise DPCInterpError(f"no prompt for {model}/{task} yet; run make prompts MODEL={model}")
        prompts[task] = [load_prompt(name) for name in names]
    problems = {task: recipes[task].load("test", n, seed=0) for task in chosen}
    package = Path(__file__).parent.parent
    code = digest(*(file.read_bytes() for file in sorted(package.rglob("*.py"))))
    return study(
        model,
        list(problems.values()),
        prompts,
        runs / f"{model}-{n}-{n_validation}-{code}",
        validation={task: recipes[task].load("validation", n_validation, seed=0) for task in chosen},
        engine="processes",
        batch_size=batch_size,
        sizes=sizes,
    )
