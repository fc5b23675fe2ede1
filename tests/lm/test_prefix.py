"""The prompt read once for all rows: the same text, the same saliency, and whole rows where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, generate
from dpc_interp.analysis.saliency import HeadReduction, flow_pass
from dpc_interp.lm.hooked import CachedDecoding, HookedModel, attention_span
from dpc_interp.lm.prefix import can_be_shared, read_prompt

OTHER = ("blocks.0.hook_resid_pre", lambda value, hook: value)
"""A hook that changes nothing, of which the code does not know that."""
ROWS = [torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2]), torch.tensor([1, 40, 9, 13, 22, 7, 2])]
N_QUESTION = [6, 3]


def test_text_is_that_of_whole_rows(
    any_model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """Each distinct corruption is read once, drafts and plans or not, and the longest question comes without it."""
    plans = [CorruptionPlan((i % 2,), mask=0.0) for i in range(len(problems))]
    drafts = [run.generated_tokens for run in generate(any_model, problems, prompt, max_new_tokens=9, progress=False)]
    for options in ({}, {"plans": plans}, {"plans": plans, "drafts": drafts}):
        passes.clear()
        shared = generate(any_model, problems, prompt, max_new_tokens=12, progress=False, **options)
        first = passes[:2]
        passes.clear()
        with any_model.hooks(fwd_hooks=[OTHER]):
            whole = generate(any_model, problems, prompt, max_new_tokens=12, progress=False, **options)
        assert [run.text for run in shared] == [run.text for run in whole]
        assert first[0] == (2 if "plans" in options else 1, prompt.n_virtual)
        assert first[1] == (len(problems), passes[0][1] - prompt.n_virtual)
    assert [run.text for run in whole] != [run.text for run in generate(any_model, problems, prompt, progress=False)]


def test_a_plan_without_a_hash(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    """Any callable is a plan."""

    @dataclass
    class Halved:
        token: int

        def __call__(self, vectors: Tensor) -> Tensor:
            return torch.cat([vectors[: self.token], 0.5 * vectors[self.token :]])

    for plans in ([Halved(i % 2) for i in range(6)], [lambda vectors: 0.5 * vectors] * 6):
        found = generate(model, problems[:6], prompt, plans=plans, max_new_tokens=9, progress=False)
        with model.hooks(fwd_hooks=[OTHER]):
            whole = generate(model, problems[:6], prompt, plans=plans, max_new_tokens=9, progress=False)
        assert [run.text for run in found] == [run.text for run in whole]


def test_a_short_window_takes_whole_rows_and_no_drafts(
    hugging_face: Callable, bridge: Callable, problems: list[Problem], prompt: SoftPrompt
) -> None:
    """Positions that are hidden count in a window."""
    model = bridge(hugging_face("mistral"))
    assert attention_span(model) == 8
    assert can_be_shared(model, 8)
    assert not can_be_shared(model, 9)
    own = generate(model, problems, prompt, max_new_tokens=12, progress=False)
    drafts = [torch.cat([run.generated_tokens[:4], torch.full((8,), 7)]) for run in own]
    found = generate(model, problems, prompt, drafts=drafts, max_new_tokens=12, progress=False)
    assert [run.text for run in found] == [run.text for run in own]


@pytest.mark.usefixtures("needs_hooked")
def test_window_of_a_hooked_transformer(hugging_face: Callable, hooked: Callable) -> None:
    assert attention_span(hooked(hugging_face("mistral"))) == 8
    llama = hooked(hugging_face("llama"))
    assert attention_span(llama) == llama.cfg.n_ctx


def test_gradients_of_copies_add_up(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """Of two rows that are the same: twice that of one."""
    grads = []
    for batch in (1, 2):
        vectors = prompt.vectors.clone().requires_grad_()
        logits = read_prompt(any_model, vectors, batch)(ROWS[0].expand(batch, -1))
        grads += torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), vectors)
    assert grads[0].abs().max() > 1e-3
    torch.testing.assert_close(grads[1], 2 * grads[0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_copy_goes_on_by_itself(any_model: HookedModel) -> None:
    """From the same rows, taken twice, and neither sees what the other reads."""
    tokens = torch.arange(3, 17).view(2, 7)
    read, rows = CachedDecoding(any_model, 2), torch.tensor([1, 0, 1])
    read(tokens)
    copied = read.copied(rows)
    read(tokens[:, 2:5])
    found = copied(tokens[rows, 1:2])
    again = CachedDecoding(any_model, 3)
    again(tokens[rows])
    torch.testing.assert_close(found, again(tokens[rows, 1:2]), rtol=1e-5, atol=1e-5)


def flows(model: HookedModel, prompt: SoftPrompt, **options) -> tuple[dict[int, Tensor], Tensor]:
    kept: dict[int, Tensor] = {}
    nll = flow_pass(model, ROWS, N_QUESTION, prompt.vectors, kept.__setitem__, **options)
    return kept, nll


@pytest.mark.parametrize("how", ["abs_of_sum", "sum_of_abs"])
@pytest.mark.parametrize("case", ["shared", "hooked", "checkpointed"])
def test_saliency_behind_the_prompt(
    any_model: HookedModel, prompt: SoftPrompt, how: HeadReduction, case: str, passes: list[tuple[int, ...]], unchanged
) -> None:
    expected, nll = flows(any_model, prompt, head_reduction=how)
    assert not passes
    with unchanged(any_model), any_model.hooks(fwd_hooks=[OTHER] if case == "hooked" else []):
        options = {"head_reduction": how, "checkpoint": case == "checkpointed", "prompt_rows": False}
        found, again = flows(any_model, prompt, **options)
    assert bool(passes) == (case == "shared")
    torch.testing.assert_close(again, nll, rtol=1e-5, atol=1e-6)
    for layer, flow in expected.items():
        assert flow.max() > 1e-5
        behind = flow[:, prompt.n_virtual :]
        assert found[layer].shape == behind.shape
        torch.testing.assert_close(found[layer], behind, rtol=1e-4, atol=1e-6 * flow.max().item())


def test_a_prompt_is_read_apart_for_several_rows(
    any_model: HookedModel, prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """For one alone only where it has been read before; the saliency is the same."""
    found = []
    with torch.no_grad():
        read = read_prompt(any_model, prompt.vectors, 1)
    for behind, n_passes in ((None, 0), (read, 1)):
        passes.clear()
        kept: dict[int, Tensor] = {}
        options = {"prompt_rows": False, "behind": behind}
        flow_pass(any_model, ROWS[:1], N_QUESTION[:1], prompt.vectors, kept.__setitem__, **options)
        assert len(passes) == n_passes
        found.append(torch.stack([kept[layer] for layer in sorted(kept)]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6 * found[0].max().item())


def test_a_knock_out_of_the_callers_acts_in_the_analysis(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """Which names its edges by positions of whole rows."""

    def cut(pattern: Tensor, hook: HookPoint) -> Tensor:
        changed = pattern.clone()
        changed[:, :, prompt.n_virtual + 7, 2] = 0
        return changed

    with any_model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", cut)]):
        found, _ = flows(any_model, prompt, prompt_rows=False)
    assert (found[1][:, 7, 2] == 0).all()
    assert (found[1][0, 7, 1] > 0).all()
