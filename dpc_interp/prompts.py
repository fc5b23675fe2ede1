"""The soft prompts that ship with the package, and how each was tuned: `python -m dpc_interp.prompts --model reasoner`.

Three tuning seeds for each task, about 20 minutes each on one core for SmolLM2. A prompt that is there already is left
alone; remove its folder to tune it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dpc_interp.errors import UnknownNameError
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import PROMPTS
from dpc_interp.lm.tuning import tune_prompt
from dpc_interp.parallel import map_processes
from dpc_interp.tasks.problems import SYNTHETIC, Problem, load_problems

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """Whose problems a prompt was tuned on, the frozen weights' dtype, and options of `tune_prompt`."""

    problems: str
    max_steps: int | None = None
    n_train: int = 4000
    n_virtual_tokens: int = 20
    dtype: torch.dtype = torch.float32
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, split: str, n: int, seed: int) -> list[Problem]:
        """Problems of this recipe's task and difficulty."""
        return load_problems(self.problems, split, n=n, seed=seed, max_steps=self.max_steps)


SMOLLM2: Mapping[str, Any] = {"n_steps": 300, "batch_size": 8, "learning_rate": 0.12, "check_every": 50}
# A worked example to start from, chosen on validation: its loss after 150 steps was 0.10, from random tokens 0.16.
STORY = "Ann has 15 cups. Ann buys 7 cups. Count the cups of Ann.\nbuys 7: 15 + 7 = 22\n#### 22\n\n"
GSM = "Ann has 14 pens. Ben has 3 more. How many pens does Ben have?\nBen has 14 + 3 = 17 pens.\n#### 17\n\n"
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "reasoner": {task: Recipe(task) for task in SYNTHETIC},
    "smollm2-135m": {
        "story": Recipe("story", 3, 4000, 41, torch.bfloat16, {**SMOLLM2, "init_text": STORY}),
        "gsm_symbolic": Recipe(
            "gsm_symbolic/10,16,31,43,62,72",
            n_virtual_tokens=41,
            dtype=torch.bfloat16,
            options={**SMOLLM2, "n_steps": 100, "init_text": GSM},
        ),
    },
}
"""Model -> task -> recipe; the first task is the model's main one."""


def recipes_of(model: str) -> Mapping[str, Recipe]:
    """The tasks that `model` has bundled prompts for."""
    if model not in RECIPES:
        raise UnknownNameError("model with bundled prompts", model, list(RECIPES))
    return RECIPES[model]


def tune(model: str, task: str, seed: int, out: Path) -> str:
    """Tune one prompt and save it as a PEFT adapter; its best validation loss, in words."""
    folder = out / task / f"seed{seed}"
    if (folder / "adapter_model.safetensors").exists():
        return f"{task} seed {seed}: there already"
    recipe = recipes_of(model)[task]
    prompt = tune_prompt(
        load_model(model, dtype=recipe.dtype),
        recipe.load("train", recipe.n_train, seed),
        recipe.n_virtual_tokens,
        seed,
        validation=recipe.load("validation", 100, seed=1),
        name=f"{task}/seed{seed}",
        progress=False,
        **recipe.options,
    )
    told = {"problems": recipe.problems, "max_steps": recipe.max_steps, "dtype": str(recipe.dtype), **prompt.recipe}
    replace(prompt, recipe=told).save_pretrained(folder, base_model=model)
    return f"{task} seed {seed}: validation loss {min(row['validation'] for row in prompt.recipe['learning_curve'])}"


def main() -> None:
    """Tune every prompt of a model, one process a core; all at once where there is a GPU."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="reasoner")
    parser.add_argument("--out", type=Path, help="default: where the package keeps them")
    parser.add_argument("--tasks", nargs="+", help="default: all of the model's")
    args = parser.parse_args()
    tasks = args.tasks or list(recipes_of(args.model))
    jobs = [(args.model, task, seed, args.out or PROMPTS / args.model) for task in tasks for seed in SEEDS]
    at_once = len(jobs) if torch.cuda.is_available() else None
    print("\n".join(map_processes(tune, jobs, "tune prompts", at_once)))


if __name__ == "__main__":
    main()
