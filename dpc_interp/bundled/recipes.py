"""The soft prompts that ship with the package, and how each was tuned.

`python -m dpc_interp.bundled.recipes --model reasoner` tunes ten seeds for each task. For SmolLM2 each prompt takes
about 20 minutes on one core. An existing prompt is skipped; remove its folder to tune it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter, run

from dpc_interp.errors import UnknownNameError
from dpc_interp.host.processes import map_processes
from dpc_interp.models.loading import load_model
from dpc_interp.prompts.soft_prompt import PROMPTS
from dpc_interp.prompts.tuning import TuningConfig, tune_prompt
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import SYNTHETIC, load_problems

N_VALIDATION = 100
"""Validation problems that choose the training step of a prompt."""


@dataclass(frozen=True)
class Recipe:
    """How a bundled prompt is tuned.

    Attributes:
        problems: name of the task whose problems it is tuned on.
        problem_max_steps: the largest number of rationale steps of a problem; None: the largest of the task.
        n_train: training problems.
        n_virtual_tokens: vectors of the prompt.
        n_seeds: tuning seeds, 0 and on.
        dtype: dtype of the frozen weights.
        tuning: options of `tune_prompt`.
    """

    problems: str
    problem_max_steps: int | None = None
    n_train: int = 4000
    n_virtual_tokens: int = 20
    n_seeds: int = 10
    dtype: torch.dtype = torch.float32
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def load(self, split: str, n: int, seed: int) -> list[Problem]:
        """Draw problems of this recipe's task and difficulty; the arguments are those of `load_problems`."""
        return load_problems(self.problems, split, n=n, seed=seed, max_steps=self.problem_max_steps)


SMOLLM2 = TuningConfig(max_steps=300, batch_size=8, learning_rate=0.12, eval_steps=50)
# The prompts of SmolLM2 start from a worked example rather than from random tokens: after 150 training steps its
# validation loss was 0.10, that from random tokens 0.16.
STORY = "Ann has 15 cups. Ann buys 7 cups. Count the cups of Ann.\nbuys 7: 15 + 7 = 22\n#### 22\n\n"
GSM = "Ann has 14 pens. Ben has 3 more. How many pens does Ben have?\nBen has 14 + 3 = 17 pens.\n#### 17\n\n"
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "reasoner": {task: Recipe(task) for task in SYNTHETIC},
    "smollm2-135m": {
        "story": Recipe(
            "story",
            problem_max_steps=3,
            n_virtual_tokens=41,
            n_seeds=3,
            dtype=torch.bfloat16,
            tuning=replace(SMOLLM2, init_text=STORY),
        ),
        "gsm_symbolic": Recipe(
            "gsm_symbolic/10,16,31,43,62,72",
            n_virtual_tokens=41,
            n_seeds=3,
            dtype=torch.bfloat16,
            tuning=replace(SMOLLM2, max_steps=100, init_text=GSM),
        ),
    },
}
"""Model -> task -> recipe; the first task is the model's main one."""


def recipes_of(model: str) -> Mapping[str, Recipe]:
    """The recipes of a model, by task.

    Args:
        model: its name.

    Raises:
        UnknownNameError: a model without bundled prompts.
    """
    if model not in RECIPES:
        raise UnknownNameError("model with bundled prompts", model, list(RECIPES))
    return RECIPES[model]


@dataclass(frozen=True)
class TunePrompt:
    """The job that tunes one prompt and saves it as a PEFT adapter.

    Attributes:
        model: its name.
        task: name of a recipe of the model.
        seed: tuning seed.
        out: folder of the prompts; this one is saved in `task`/seed`N`.
    """

    model: str
    task: str
    seed: int
    out: Path

    def __call__(self) -> str:
        """Tune the prompt unless it exists; returns a line that states its lowest validation loss."""
        folder = self.out / self.task / f"seed{self.seed}"
        if (folder / "adapter_model.safetensors").exists():
            return f"{self.task} seed {self.seed}: exists already"
        recipe = recipes_of(self.model)[self.task]
        prompt = tune_prompt(
            load_model(self.model, dtype=recipe.dtype),
            recipe.load("train", recipe.n_train, self.seed),
            recipe.n_virtual_tokens,
            self.seed,
            validation=recipe.load("validation", N_VALIDATION, seed=1),
            config=recipe.tuning,
            name=f"{self.task}/seed{self.seed}",
            progress=False,
        )
        stored = {"problems": recipe.problems, "problem_max_steps": recipe.problem_max_steps}
        stored |= {"dtype": str(recipe.dtype), **prompt.recipe}
        replace(prompt, recipe=stored).save_pretrained(folder, base_model=self.model)
        losses = [row["validation"] for row in prompt.recipe["learning_curve"]]
        return f"{self.task} seed {self.seed}: validation loss {min(losses)}"


def main(
    *,
    model: str = "reasoner",
    out: Path | None = None,
    tasks: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
) -> None:
    """Tune every prompt of a model, one process per core, or all at once on a GPU.

    Args:
        model: name of a model with recipes.
        out: folder of the prompts; default: the assets of the package.
        tasks: default: all that the model has recipes for.
    """
    jobs = [
        TunePrompt(model, task, seed, out or PROMPTS / model)
        for task in tasks or list(recipes_of(model))
        for seed in range(recipes_of(model)[task].n_seeds)
    ]
    n_processes = len(jobs) if torch.cuda.is_available() else None
    print("\n".join(map_processes(jobs, "tune prompts", n_processes)))


if __name__ == "__main__":
    run(main)
