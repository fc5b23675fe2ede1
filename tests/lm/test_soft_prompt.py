"""A soft prompt enters through its hook, leaves with it, and comes back from disk as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dpc_interp import SoftPrompt, generate, load_prompt, prompted, saliency
from dpc_interp.lm.lens import HookedTransformer
from dpc_interp.lm.soft_prompt import bundled_prompts
from dpc_interp.lm.tuning import prompt_loss

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13], [1, 33, 20, 87, 101, 2]])


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_vectors_stand_where_the_embeddings_stood(model: HookedTransformer, prompt: SoftPrompt) -> None:
    """A prompt made of token embeddings reads as those tokens."""
    ids = torch.tensor([77, 12, 150])
    with prompted(model, SoftPrompt(model.W_E[ids])) as run:
        logits = run(TOKENS)
    assert torch.equal(logits, model(torch.cat([ids.expand(2, -1), TOKENS], dim=1)))


def test_nothing_is_left_behind(each_model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    with unchanged(each_model), prompted(each_model, prompt) as run:
        assert run(TOKENS).shape == (2, prompt.n_virtual + 6, each_model.cfg.d_vocab)
    with unchanged(each_model), pytest.raises(KeyboardInterrupt), prompted(each_model, prompt) as run:
        interrupt(run(TOKENS))


def test_contexts_nest(model: HookedTransformer, prompt: SoftPrompt) -> None:
    other = SoftPrompt(-prompt.vectors)
    with prompted(model, prompt) as run:
        before = run(TOKENS)
        with prompted(model, other) as run_other:
            inner = run_other(TOKENS)
        assert torch.equal(run(TOKENS), before)
    with prompted(model, other) as run_other:
        assert torch.equal(run_other(TOKENS), inner)
    assert not torch.allclose(inner, before)


def test_a_hook_of_the_users_own_survives(model: HookedTransformer, prompt: SoftPrompt, problems) -> None:
    seen: list[str] = []

    def own(value: torch.Tensor, hook: object) -> None:
        seen.append("embed")

    model.add_hook("hook_embed", own)
    try:
        with prompted(model, prompt) as run:
            run(TOKENS)
        saliency(model, TOKENS[0], prompt, 3)
        generate(model, problems[:1], prompt, max_new_tokens=1, progress=False)
        assert len(seen) == 3
        model(TOKENS)
        assert len(seen) == 4
    finally:
        model.reset_hooks()


def test_virtual_tokens_are_no_padding(model: HookedTransformer, prompt: SoftPrompt, monkeypatch) -> None:
    """A tokenizer that pads on the left has TransformerLens mask leading pad tokens; placeholders are not meant."""

    def answers() -> list[torch.Tensor]:
        with prompted(model, prompt) as run:
            logits = run(TOKENS)
        flow = saliency(model, TOKENS[0], prompt, 3)
        return [logits, flow, prompt_loss(model, [(TOKENS[0], 3), (TOKENS[1, :4], 2)], prompt.vectors)]

    expected = answers()
    monkeypatch.setattr(model.tokenizer, "padding_side", "left")
    for found, wanted in zip(answers(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_prompt_comes_back_from_disk(prompt: SoftPrompt, tmp_path: Path) -> None:
    kept = SoftPrompt(
        prompt.vectors, "story/seed3", {"seed": 3, "learning_curve": [{"step": 1, "train": 2.5, "validation": 2.25}]}
    )
    kept.save_pretrained(tmp_path / "adapter", base_model="somewhere")
    found = load_prompt(str(tmp_path / "adapter"))
    assert torch.equal(found.vectors, kept.vectors)
    assert (found.name, found.recipe) == (kept.name, kept.recipe)


def test_names_of_bundled_prompts(prompt: SoftPrompt, tmp_path: Path, monkeypatch) -> None:
    """The name of a task alone means its seed 0."""
    monkeypatch.setattr("dpc_interp.lm.soft_prompt.PROMPTS", tmp_path)
    for seed in range(2):
        SoftPrompt(prompt.vectors + seed, f"story/seed{seed}").save_pretrained(
            tmp_path / "reasoner" / "story" / f"seed{seed}"
        )
    assert bundled_prompts("reasoner/") == ["reasoner/story/seed0", "reasoner/story/seed1"]
    assert load_prompt("reasoner/story").name == "story/seed0"
    assert load_prompt("reasoner/story/seed1").name == "story/seed1"


def test_prompt_without_a_recipe_is_named_after_its_folder(prompt: SoftPrompt, tmp_path: Path, monkeypatch) -> None:
    prompt.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "recipe.json").unlink()
    assert load_prompt(str(tmp_path / "mine")).name == "mine"
    monkeypatch.chdir(tmp_path / "mine")
    assert load_prompt(".").name == "mine"


def test_saved_config_is_that_of_a_prompt_tuning_adapter(prompt: SoftPrompt, tmp_path: Path) -> None:
    prompt.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"], config["token_dim"]) == ("PROMPT_TUNING", 5, 16)
