"""The recipes of the shipped prompts, and the job that tunes one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, load_prompt
from dpc_interp.bundled.recipes import RECIPES, Recipe, TunePrompt, recipes_of
from dpc_interp.prompts.soft_prompt import bundled_prompts
from dpc_interp.prompts.tuning import TuningConfig

SHIPPED = [(model, task) for model, recipes in RECIPES.items() for task in recipes]


def test_unknown_model_raises() -> None:
    with pytest.raises(DPCInterpError, match=r"unknown model .*'gpt-9'.*reasoner"):
        recipes_of("gpt-9")


@pytest.mark.parametrize(("model", "task"), SHIPPED)
def test_every_prompt_ships_as_its_recipe_states(model: str, task: str) -> None:
    recipe, names = recipes_of(model)[task], bundled_prompts(f"{model}/{task}/")
    assert names == [f"{model}/{task}/seed{seed}" for seed in range(recipe.n_seeds)]
    for seed, name in enumerate(names):
        prompt = load_prompt(name)
        assert prompt.n_virtual == recipe.n_virtual_tokens
        assert prompt.recipe["seed"] == seed
        assert prompt.recipe["max_steps"] == recipe.tuning.max_steps
        assert prompt.recipe["learning_rate"] == recipe.tuning.learning_rate
        assert prompt.recipe["n_train"] == recipe.n_train


def test_recipe_draws_problems_of_its_difficulty() -> None:
    problems = Recipe("story", problem_max_steps=2).load("validation", 10, seed=0)
    assert len(problems) == 10
    assert {problem.task for problem in problems} == {"story"}
    assert {problem.n_steps for problem in problems} == {1, 2}


@pytest.fixture
def quick_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = TuningConfig(max_steps=2, batch_size=2, eval_steps=1)
    recipe = Recipe("story", problem_max_steps=1, n_train=4, n_virtual_tokens=2, tuning=tuning)
    monkeypatch.setattr("dpc_interp.bundled.recipes.RECIPES", {"reasoner": {"story": recipe}})
    monkeypatch.setattr("dpc_interp.bundled.recipes.N_VALIDATION", 2)


def test_job_saves_the_prompt_with_its_recipe(quick_recipe: None, tmp_path: Path) -> None:
    text = TunePrompt("reasoner", "story", 1, tmp_path)()
    prompt = load_prompt(tmp_path / "story" / "seed1")
    losses = [row["validation"] for row in prompt.recipe["learning_curve"]]
    assert text == f"story seed 1: validation loss {min(losses)}"
    assert prompt.vectors.shape[0] == 2
    assert (prompt.recipe["problems"], prompt.recipe["problem_max_steps"]) == ("story", 1)
    assert prompt.recipe["dtype"] == "torch.float32"


def test_existing_prompt_is_skipped(quick_recipe: None, tmp_path: Path) -> None:
    job = TunePrompt("reasoner", "story", 0, tmp_path)
    job()
    weights = tmp_path / "story" / "seed0" / "adapter_model.safetensors"
    written = weights.stat().st_mtime_ns
    assert job() == "story seed 0: exists already"
    assert weights.stat().st_mtime_ns == written
    assert "validation loss" in replace(job, seed=2)()
