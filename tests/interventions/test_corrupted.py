"""A corrupted prompt acts like a prompt of the corrupted vectors, within its context only."""

from __future__ import annotations

import pytest
import torch

from dpc_interp import CorruptionPlan, SoftPrompt, corrupted, prompted
from dpc_interp.errors import DPCInterpError
from dpc_interp.models.lens import HookedTransformer
from dpc_interp.prompts.embed_hooks import edit_prompt

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13], [1, 33, 20, 87, 101, 2]])
PLANS = [
    CorruptionPlan((2,)),
    CorruptionPlan((1, 4), mask=0.3),
    CorruptionPlan(gamma=40),
    CorruptionPlan((3,), gamma=10),
]


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def logits_of(model: HookedTransformer, vectors: torch.Tensor) -> torch.Tensor:
    with prompted(model, SoftPrompt(vectors)) as run:
        return run(TOKENS)


def test_an_empty_plan_changes_nothing(each_model: HookedTransformer, prompt: SoftPrompt) -> None:
    expected = logits_of(each_model, prompt.vectors)
    for plan in (CorruptionPlan(), CorruptionPlan((0, 3), mask=1.0)):
        with corrupted(each_model, prompt, plan) as run:
            assert torch.equal(run(TOKENS), expected)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_acts_like_a_prompt_of_the_corrupted_vectors(
    each_model: HookedTransformer, prompt: SoftPrompt, plan: CorruptionPlan
) -> None:
    with corrupted(each_model, prompt, plan) as run:
        logits = run(TOKENS)
    assert torch.equal(logits, logits_of(each_model, plan(prompt.vectors)))
    assert not torch.allclose(logits, logits_of(each_model, prompt.vectors), atol=1e-2)


def test_each_row_can_have_a_different_edit(model: HookedTransformer, prompt: SoftPrompt) -> None:
    with prompted(model, prompt, edit_prompt(PLANS[:2], prompt.n_virtual)) as run:
        logits = run(TOKENS)
    for row, plan in enumerate(PLANS[:2]):
        torch.testing.assert_close(logits[row], logits_of(model, plan(prompt.vectors))[row])


def test_a_wrong_number_of_edits_raises(model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    edit = edit_prompt(PLANS[:3], prompt.n_virtual)
    raises = pytest.raises(DPCInterpError, match="3 edits for 2 rows")
    with unchanged(model), prompted(model, prompt, edit) as run, raises:
        run(TOKENS)


@pytest.mark.parametrize("plan", PLANS[:1])
def test_the_model_and_the_prompt_are_restored(
    each_model: HookedTransformer, prompt: SoftPrompt, plan: CorruptionPlan, unchanged
) -> None:
    vectors = prompt.vectors.clone()
    with unchanged(each_model), corrupted(each_model, prompt, plan) as run:
        run(TOKENS)
    with unchanged(each_model), pytest.raises(KeyboardInterrupt), corrupted(each_model, prompt, plan) as run:
        interrupt(run(TOKENS))
    with unchanged(each_model), pytest.raises(DPCInterpError), corrupted(each_model, prompt, CorruptionPlan((99,))):
        pytest.fail("the body must not run")
    assert torch.equal(prompt.vectors, vectors)


def test_hooks_of_the_user_survive_and_act_within_the_context(model: HookedTransformer, prompt: SoftPrompt) -> None:
    def zero_pattern(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        return pattern * 0

    model.add_hook("blocks.1.attn.hook_pattern", zero_pattern)
    try:
        before = model(TOKENS)
        with corrupted(model, prompt, PLANS[0]) as run:
            within = run(TOKENS)
        assert torch.equal(model(TOKENS), before)
    finally:
        model.reset_hooks()
    assert not torch.allclose(model(TOKENS), before)
    with corrupted(model, prompt, PLANS[0]) as run:
        assert not torch.allclose(run(TOKENS), within), "the hook of the user must act within the context"


def test_acts_on_every_forward_pass_of_the_model(model: HookedTransformer, prompt: SoftPrompt) -> None:
    """For example, `run_with_cache` caches the corrupted embeddings."""
    with corrupted(model, prompt, PLANS[0]):
        _, cache = model.run_with_cache(
            torch.cat([torch.zeros(1, prompt.n_virtual, dtype=torch.long), TOKENS[:1]], dim=1)
        )
    assert torch.equal(cache["embed"][0, : prompt.n_virtual], PLANS[0](prompt.vectors))
