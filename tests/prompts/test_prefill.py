"""A prompt that is prefilled once and shared gives the same text and saliency as a prompt in every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, generate, prompted
from dpc_interp.analysis.recorder import whole_map
from dpc_interp.analysis.saliency import HeadReduction, SaliencyPass, saliency_pass
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.prefill import can_share_prompt_cache, keep_last_position, prefill_prompt

NO_CHANGE = ("blocks.0.hook_resid_pre", lambda value, hook: value)
"""A hook that changes nothing. The package cannot know that, so the prompt is not shared while it is on the model."""
SEQUENCES = [torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2]), torch.tensor([1, 40, 9, 13, 22, 7, 2])]
N_QUESTION = [6, 3]


def texts(model: HookedModel, problems: list[Problem], prompt: SoftPrompt, **options: object) -> list[str]:
    runs = generate(model, problems, prompt, max_new_tokens=12, progress=False, **options)
    return [run.text for run in runs]


def test_sharing_needs_a_model_without_hooks(any_model: HookedModel) -> None:
    n_ctx = any_model.cfg.n_ctx
    assert can_share_prompt_cache(any_model, n_ctx)
    assert not can_share_prompt_cache(any_model, n_ctx + 1)
    with any_model.hooks(fwd_hooks=[NO_CHANGE]):
        assert not can_share_prompt_cache(any_model, 1)
    with any_model.hooks(bwd_hooks=[("blocks.0.hook_resid_pre", lambda grad, hook: None)]):
        assert not can_share_prompt_cache(any_model, 1)
    assert can_share_prompt_cache(any_model, 1)


@torch.no_grad()
def test_a_prefilled_prompt_gives_the_logits_of_prompted(any_model: HookedModel, prompt: SoftPrompt, unchanged) -> None:
    """Under plans, each row follows its own prompt, and equal plans may repeat in any order."""
    tokens = torch.stack([SEQUENCES[0][:6]] * 4)
    factors = [2.0, -1.0, 2.0, 0.5]
    plans = [CorruptionPlan((0,), mask=0.5), CorruptionPlan((1,)), CorruptionPlan((0,), mask=0.5), CorruptionPlan(())]
    with unchanged(any_model):
        shared = prefill_prompt(any_model, prompt.vectors, 4)(tokens)
        edited = prefill_prompt(any_model, prompt.vectors, 4, plans)(tokens)
        scaled = prefill_prompt(any_model, prompt.vectors, 4, [lambda v, f=f: f * v for f in factors])(tokens)
    for row in range(4):
        for logits, vectors in (
            (shared, prompt.vectors),
            (edited, plans[row](prompt.vectors)),
            (scaled, factors[row] * prompt.vectors),
        ):
            with prompted(any_model, SoftPrompt(vectors)) as run:
                expected = run(tokens[:1])[0, prompt.n_virtual :]
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
    assert (edited[0] - edited[1]).abs().max() > 1e-2


def test_gradients_of_all_rows_reach_the_prompt(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """Two equal rows give twice the gradient of one."""
    grads = []
    for batch_size in (1, 2):
        vectors = prompt.vectors.clone().requires_grad_()
        logits = prefill_prompt(any_model, vectors, batch_size)(SEQUENCES[0].expand(batch_size, -1))
        grads += torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), vectors)
    assert grads[0].abs().max() > 1e-3
    torch.testing.assert_close(grads[1], 2 * grads[0], rtol=1e-4, atol=1e-6)


def test_only_the_last_position_is_left() -> None:
    resid = torch.arange(12.0).view(2, 3, 2)
    assert keep_last_position(resid, HookPoint()).tolist() == [[[4, 5]], [[10, 11]]]


def test_text_is_that_of_a_prompt_in_every_row(
    any_model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """With and without plans and drafts; each distinct corruption is prefilled once."""
    plans = [CorruptionPlan((i % 2,), mask=0.0) for i in range(len(problems))]
    runs = generate(any_model, problems, prompt, max_new_tokens=9, progress=False)
    drafts = [run.generated_tokens for run in runs]
    for options in ({}, {"plans": plans}, {"plans": plans, "draft_tokens": drafts}):
        passes.clear()
        shared = texts(any_model, problems, prompt, **options)
        shared_passes = passes[:2]
        passes.clear()
        with any_model.hooks(fwd_hooks=[NO_CHANGE]):
            in_rows = texts(any_model, problems, prompt, **options)
        assert shared == in_rows
        assert shared_passes[0] == (2 if "plans" in options else 1, prompt.n_virtual)
        assert shared_passes[1] == (len(problems), passes[0][1] - prompt.n_virtual)
    assert in_rows != texts(any_model, problems, prompt), "the plans must change some texts"


def test_any_callable_is_a_plan(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    """A dataclass that is not frozen has no hash."""

    @dataclass
    class HalveFrom:
        token: int

        def __call__(self, vectors: Tensor) -> Tensor:
            return torch.cat([vectors[: self.token], 0.5 * vectors[self.token :]])

    for plans in ([HalveFrom(i % 2) for i in range(6)], [lambda vectors: 0.5 * vectors] * 6):
        shared = texts(model, problems[:6], prompt, plans=plans)
        with model.hooks(fwd_hooks=[NO_CHANGE]):
            assert shared == texts(model, problems[:6], prompt, plans=plans)


def test_a_short_window_does_not_share_and_does_not_draft(
    hugging_face: Callable, bridge: Callable, problems: list[Problem], prompt: SoftPrompt
) -> None:
    """Masked positions count in an attention window, so rejected draft tokens would push others out of it."""
    model = bridge(hugging_face("mistral"))
    assert can_share_prompt_cache(model, 8)
    assert not can_share_prompt_cache(model, 9)
    runs = generate(model, problems, prompt, max_new_tokens=12, progress=False)
    drafts = [torch.cat([run.generated_tokens[:4], torch.full((8,), 7)]) for run in runs]
    assert texts(model, problems, prompt, draft_tokens=drafts) == [run.text for run in runs]


def run_saliency(model: HookedModel, prompt: SoftPrompt, **options: object) -> SaliencyPass[Tensor]:
    return saliency_pass(model, SEQUENCES, N_QUESTION, prompt.vectors, whole_map, **options)


@pytest.mark.parametrize("head_reduction", ["abs_of_sum", "sum_of_abs"])
@pytest.mark.parametrize("case", ["shared", "with a hook", "with gradient checkpointing"])
def test_saliency_after_a_shared_prompt(
    any_model: HookedModel,
    prompt: SoftPrompt,
    head_reduction: HeadReduction,
    case: str,
    passes: list[tuple[int, ...]],
    unchanged,
) -> None:
    """The destinations after the prompt are those of a pass over complete rows."""
    expected = run_saliency(any_model, prompt, head_reduction=head_reduction)
    assert not passes
    options = {"prompt_rows": False, "gradient_checkpointing": case == "with gradient checkpointing"}
    with unchanged(any_model), any_model.hooks(fwd_hooks=[NO_CHANGE] if case == "with a hook" else []):
        result = run_saliency(any_model, prompt, head_reduction=head_reduction, **options)
    assert bool(passes) == (case == "shared")
    torch.testing.assert_close(result.nll, expected.nll, rtol=1e-5, atol=1e-6)
    for flow, complete in zip(result.layers, expected.layers, strict=True):
        assert complete.max() > 1e-5
        after_prompt = complete[:, prompt.n_virtual :]
        assert flow.shape == after_prompt.shape
        torch.testing.assert_close(flow, after_prompt, rtol=1e-4, atol=1e-6 * complete.max().item())


def test_saliency_of_one_row_after_a_given_prompt_cache(any_model: HookedModel, prompt: SoftPrompt) -> None:
    with torch.no_grad():
        cache = prefill_prompt(any_model, prompt.vectors, 1)
    layers = [
        torch.stack(
            saliency_pass(
                any_model,
                SEQUENCES[:1],
                N_QUESTION[:1],
                prompt.vectors,
                whole_map,
                prompt_rows=False,
                prompt_cache=prompt_cache,
            ).layers
        )
        for prompt_cache in (None, cache)
    ]
    torch.testing.assert_close(*layers, rtol=1e-4, atol=1e-6 * layers[0].max().item())


def test_a_knock_out_by_the_caller_acts_on_the_saliency(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """It names its edge by positions that count the virtual tokens, so the prompt must not be shared."""

    def knock_out(pattern: Tensor, hook: HookPoint) -> Tensor:
        changed = pattern.clone()
        changed[:, :, prompt.n_virtual + 7, 2] = 0
        return changed

    with any_model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", knock_out)]):
        flow = run_saliency(any_model, prompt, prompt_rows=False).layers[1]
    assert (flow[:, 7, 2] == 0).all()
    assert (flow[0, 7, 1] > 0).all()
