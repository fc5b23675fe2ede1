"""A soft prompt enters at `hook_embed`, at the right positions, and its hooks are removed with the context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate, prompted, saliency
from dpc_interp.errors import ContextLengthError
from dpc_interp.models.lens import HookedTransformer
from dpc_interp.prompts.embed_hooks import (
    PLACEHOLDER,
    edit_prompt,
    forward_with_placeholders,
    prompt_index,
    with_placeholders,
    write_prompt,
)
from dpc_interp.prompts.tuning import prompt_loss

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13], [1, 33, 20, 87, 101, 2]])
VECTORS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
STARTS = torch.tensor([0, 2])
HOOK = HookPoint()


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_prompt_index_counts_from_the_start_of_each_row() -> None:
    rows, columns = prompt_index(2, 3, STARTS)
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert columns.tolist() == [[0, 1, 2], [2, 3, 4]]
    assert prompt_index(2, 3, None).columns.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_placeholders_come_before_the_tokens() -> None:
    assert with_placeholders(TOKENS[:1, :2], 3).tolist() == [[PLACEHOLDER] * 3 + [1, 40]]
    assert torch.equal(with_placeholders(TOKENS, 0), TOKENS)


def test_write_prompt_replaces_the_embeddings_of_virtual_tokens_only() -> None:
    embed = torch.full((2, 4, 2), 9.0)
    written = write_prompt(VECTORS, STARTS)(embed, HOOK)
    assert written.tolist() == [[[1, 2], [3, 4], [9, 9], [9, 9]], [[9, 9], [9, 9], [1, 2], [3, 4]]]
    assert (embed == 9).all(), "the embedding itself must not be written to"


def test_gradients_reach_the_written_vectors() -> None:
    """Each row adds its gradient: the weights 1 and 10 of the two rows sum to 11."""
    vectors = VECTORS.clone().requires_grad_()
    written = write_prompt(vectors, STARTS)(torch.zeros(2, 4, 2), HOOK)
    (grad,) = torch.autograd.grad((written * torch.tensor([1.0, 10.0])[:, None, None]).sum(), vectors)
    assert (grad == 11).all()


def test_edit_prompt_edits_each_row_by_its_own_plan() -> None:
    embed = write_prompt(VECTORS, STARTS)(torch.full((2, 4, 2), 9.0), HOOK)
    edits = [lambda vectors: 10 * vectors, lambda vectors: -vectors]
    edited = edit_prompt(edits, 2, STARTS)(embed, HOOK)
    assert edited.tolist() == [[[10, 20], [30, 40], [9, 9], [9, 9]], [[9, 9], [9, 9], [-1, -2], [-3, -4]]]
    edited = edit_prompt(edits[:1], 2, STARTS)(embed, HOOK)
    assert edited[1].tolist() == [[9, 9], [9, 9], [10, 20], [30, 40]], "a single edit is for all rows"


def test_a_wrong_number_of_edits_raises() -> None:
    hook = edit_prompt([torch.neg] * 3, 2)
    with pytest.raises(DPCInterpError, match="got 3 edits for 2 rows; give one for all rows or one a row"):
        hook(torch.zeros(2, 4, 2), HOOK)


def test_forward_without_a_prompt_is_the_forward_pass_of_the_model(model: HookedTransformer) -> None:
    torch.testing.assert_close(forward_with_placeholders(model, TOKENS, 0), model(TOKENS), rtol=1e-5, atol=1e-5)


def test_a_prompt_of_token_embeddings_reads_as_those_tokens(model: HookedTransformer) -> None:
    ids = torch.tensor([77, 12, 150])
    with prompted(model, SoftPrompt(model.W_E[ids])) as run:
        logits = run(TOKENS)
    expected = model(torch.cat([ids.expand(2, -1), TOKENS], dim=1))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_further_hooks_see_the_written_prompt(model: HookedTransformer, prompt: SoftPrompt) -> None:
    negated = SoftPrompt(-prompt.vectors)
    with prompted(model, prompt, edit_prompt([torch.neg], prompt.n_virtual)) as run:
        logits = run(TOKENS)
    with prompted(model, negated) as run:
        assert torch.equal(run(TOKENS), logits)


def test_no_hook_is_left(each_model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    with unchanged(each_model), prompted(each_model, prompt) as run:
        assert run(TOKENS).shape == (2, prompt.n_virtual + 6, each_model.cfg.d_vocab)
    with unchanged(each_model), pytest.raises(KeyboardInterrupt), prompted(each_model, prompt) as run:
        interrupt(run(TOKENS))


def test_contexts_nest(model: HookedTransformer, prompt: SoftPrompt) -> None:
    other = SoftPrompt(-prompt.vectors)
    with prompted(model, prompt) as run:
        outer = run(TOKENS)
        with prompted(model, other) as run_other:
            inner = run_other(TOKENS)
        assert torch.equal(run(TOKENS), outer)
    with prompted(model, other) as run_other:
        assert torch.equal(run_other(TOKENS), inner)
    assert not torch.allclose(inner, outer)


def test_hooks_of_the_caller_fire_and_stay(
    model: HookedTransformer, prompt: SoftPrompt, problems: list[Problem]
) -> None:
    n_calls = 0

    def count(embed: Tensor, hook: object) -> None:
        nonlocal n_calls
        n_calls += 1

    model.add_hook("hook_embed", count)
    try:
        with prompted(model, prompt) as run:
            run(TOKENS)
        saliency(model, TOKENS[0], prompt, 3)
        generate(model, problems[:1], prompt, max_new_tokens=1, progress=False)
        assert n_calls == 3
        model(TOKENS)
        assert n_calls == 4
    finally:
        model.reset_hooks()


def test_virtual_tokens_are_not_padding(model: HookedTransformer, prompt: SoftPrompt, monkeypatch) -> None:
    """With a tokenizer that pads on the left, TransformerLens masks leading pad tokens; placeholders are pad tokens."""

    def outputs() -> list[Tensor]:
        with prompted(model, prompt) as run:
            logits = run(TOKENS)
        flow = saliency(model, TOKENS[0], prompt, 3)
        return [logits, flow, prompt_loss(model, [(TOKENS[0], 3), (TOKENS[1, :4], 2)], prompt.vectors)]

    expected = outputs()
    monkeypatch.setattr(model.tokenizer, "padding_side", "left")
    torch.testing.assert_close(outputs(), expected)


def test_past_the_context_raises(model: HookedTransformer, prompt: SoftPrompt) -> None:
    n_left = model.cfg.n_ctx - prompt.n_virtual
    with prompted(model, prompt) as run:
        assert run(torch.full((1, n_left), 9)).shape[1] == model.cfg.n_ctx
        with pytest.raises(ContextLengthError, match="225 positions exceed the model's context of 224"):
            run(torch.full((1, n_left + 1), 9))
