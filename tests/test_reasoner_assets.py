"""The bundled reasoner: moderate accuracy without a prompt, better with its prompts, and a complete model card."""

from __future__ import annotations

import pytest

from dpc_interp import generate, load_model, load_problems, load_prompt
from dpc_interp.models.loading import ASSETS
from dpc_interp.prompts.soft_prompt import bundled_prompts
from dpc_interp.tasks.registry import SYNTHETIC

MAX_BYTES = 20_000_000


@pytest.fixture(scope="module")
def reasoner():
    return load_model("reasoner", device="cpu")


@pytest.mark.parametrize("task", SYNTHETIC)
def test_three_prompts_of_twenty_tokens_tuned_with_different_seeds(task: str, reasoner) -> None:
    names = bundled_prompts(f"reasoner/{task}/")
    assert len(names) >= 3
    seeds = set()
    for name in names:
        prompt = load_prompt(name)
        assert prompt.vectors.shape == (20, reasoner.cfg.d_model)
        curve = prompt.recipe["learning_curve"]
        assert min(row["validation"] for row in curve) < curve[0]["validation"]
        seeds.add(prompt.recipe["seed"])
    assert len(seeds) == len(names)
    assert load_prompt(f"reasoner/{task}").recipe["seed"] == 0


def test_size_of_all_assets() -> None:
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) <= MAX_BYTES


@pytest.mark.parametrize("task", SYNTHETIC)
def test_the_prompt_helps(task: str, reasoner) -> None:
    """A loose bound on 50 test problems; the model card states the accuracy on 1,000."""
    problems = load_problems(task, n=50, seed=3)
    without_prompt, with_prompt = (
        sum(run.correct for run in generate(reasoner, problems, prompt, progress=False)) / 50
        for prompt in (None, load_prompt(f"reasoner/{task}"))
    )
    assert with_prompt >= 0.4
    assert with_prompt >= without_prompt + 0.1
