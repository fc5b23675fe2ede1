"""What ships with the package: a reasoner that is mediocre alone and helped by its prompts, and a card that says so."""

from __future__ import annotations

import json

import pytest

from dpc_interp import generate, load_model, load_problems, load_prompt
from dpc_interp.lm.loading import ASSETS, BUNDLED
from dpc_interp.lm.soft_prompt import bundled_prompts
from dpc_interp.tasks.problems import SYNTHETIC

LIMIT = 20_000_000  # bytes


@pytest.fixture(scope="module")
def reasoner():
    return load_model("reasoner", device="cpu")


@pytest.mark.parametrize("task", SYNTHETIC)
def test_three_tuning_seeds_of_twenty_tokens(task: str, reasoner) -> None:
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


def test_size() -> None:
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) <= LIMIT


@pytest.mark.parametrize("task", SYNTHETIC)
def test_the_prompt_helps(task: str, reasoner) -> None:
    """100 test problems: a loose bound on what the card measures on 1,000."""
    problems = load_problems(task, n=100, seed=3)
    bare, tuned = (
        sum(run.correct for run in generate(reasoner, problems, prompt, progress=False)) / 100
        for prompt in (None, load_prompt(f"reasoner/{task}"))
    )
    assert tuned >= 0.4
    assert tuned >= bare + 0.1


def test_model_card_states_data_recipe_and_each_task() -> None:
    folder = BUNDLED["reasoner"]
    card = (folder / "MODEL_CARD.md").read_text()
    training = json.loads((folder / "training.json").read_text())
    for word in (
        *(f"| {task} |" for task in SYNTHETIC),
        "## Data",
        "## Recipe",
        "## Accuracy",
        f"{training['tokens']:,} tokens",
        "seed",
    ):
        assert word in card, word
    assert (folder / "accuracy.csv").is_file()
