"""A soft prompt is saved and loaded without a change, and checked against the model that will read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dpc_interp import SoftPrompt, load_prompt
from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import bundled_prompts, check_finite, check_prompt


@pytest.fixture
def prompts_folder(prompt: SoftPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with two prompts for one task."""
    monkeypatch.setattr("dpc_interp.prompts.soft_prompt.PROMPTS", tmp_path)
    for seed in range(2):
        folder = tmp_path / "reasoner" / "story" / f"seed{seed}"
        SoftPrompt(prompt.vectors + seed, f"story/seed{seed}").save_pretrained(folder)
    return tmp_path


def test_loads_what_was_saved(prompt: SoftPrompt, tmp_path: Path) -> None:
    recipe = {"seed": 3, "learning_curve": [{"step": 1, "train": 2.5, "validation": 2.25}]}
    saved = SoftPrompt(prompt.vectors, "story/seed3", recipe)
    saved.save_pretrained(tmp_path / "adapter", base_model="somewhere")
    loaded = load_prompt(str(tmp_path / "adapter"))
    assert torch.equal(loaded.vectors, saved.vectors)
    assert (loaded.name, loaded.recipe, loaded.base_model) == ("story/seed3", recipe, "somewhere")


def test_saved_config_is_that_of_a_prompt_tuning_adapter(prompt: SoftPrompt, tmp_path: Path) -> None:
    prompt.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"], config["token_dim"]) == ("PROMPT_TUNING", 5, 16)


def test_names_of_bundled_prompts(prompts_folder: Path) -> None:
    """The name of a task without a seed means seed 0."""
    assert bundled_prompts("reasoner/") == ["reasoner/story/seed0", "reasoner/story/seed1"]
    assert bundled_prompts("other/") == []
    assert load_prompt("reasoner/story").name == "story/seed0"
    assert load_prompt("reasoner/story/seed1").name == "story/seed1"


def test_an_unknown_name_lists_the_known_ones(prompts_folder: Path) -> None:
    """A misspelt task of a bundled model is not looked up on the Hub."""
    with pytest.raises(UnknownNameError, match="unknown prompt 'reasoner/stroy'; known: reasoner/story, a PEFT"):
        load_prompt("reasoner/stroy")


def test_a_prompt_without_a_recipe_is_named_after_its_folder(prompt: SoftPrompt, tmp_path: Path, monkeypatch) -> None:
    prompt.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "recipe.json").unlink()
    assert load_prompt(str(tmp_path / "mine")).name == "mine"
    monkeypatch.chdir(tmp_path / "mine")
    assert load_prompt(".").name == "mine"


def test_a_file_instead_of_its_folder_raises(prompt: SoftPrompt, tmp_path: Path) -> None:
    prompt.save_pretrained(tmp_path)
    with pytest.raises(DPCInterpError, match="is a file; give the folder"):
        load_prompt(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("shape", [(5, 8), (16,), (1, 5, 16), (0, 16)])
def test_vectors_that_the_model_cannot_read_raise(model: HookedModel, shape: tuple[int, ...]) -> None:
    check_prompt(model, torch.zeros(1, 16))
    with pytest.raises(ShapeError, match=r"this model needs \[n_virtual, 16\]: tune one for it"):
        check_prompt(model, torch.zeros(shape))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_vectors_that_are_not_finite_raise(model: HookedModel, prompt: SoftPrompt, value: str) -> None:
    check_finite(prompt.vectors)
    vectors = prompt.vectors.clone()
    vectors[4, 15] = float(value)
    for check in (check_finite, lambda vectors: check_prompt(model, vectors)):
        with pytest.raises(NonFiniteError, match="contains NaN or infinity"):
            check(vectors)
