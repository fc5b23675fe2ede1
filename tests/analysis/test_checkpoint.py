"""Checkpointed equals plain on both backends; hooks fire twice and count once; the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import DPCInterpError, SoftPrompt, saliency
from dpc_interp.analysis.checkpoint import checkpointed
from dpc_interp.analysis.saliency import HeadReduction, flow_pass
from dpc_interp.lm.hooked import HookedModel

N_QUESTION = 6
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2])
SHORT = torch.tensor([1, 44, 31, 62, 9, 13, 70, 2])


def flows(model: HookedModel, prompt: SoftPrompt, **options) -> tuple[dict[int, Tensor], Tensor, list[int]]:
    """A padded batch: each layer's saliency, the NLL, and the layers in the order they were reduced."""
    kept: dict[int, Tensor] = {}
    order: list[int] = []

    def keep(layer: int, flow: Tensor) -> None:
        kept[layer] = flow
        order.append(layer)

    nll = flow_pass(model, [TOKENS, SHORT], [N_QUESTION, 4], prompt.vectors, keep, **options)
    return kept, nll, order


@pytest.mark.parametrize("how", ["abs_of_sum", "sum_of_abs", "mean_of_abs"])
def test_equals_plain(any_model: HookedModel, prompt: SoftPrompt, how: HeadReduction, unchanged) -> None:
    targets = [TOKENS.roll(1), SHORT.roll(1)]
    expected, nll, _ = flows(any_model, prompt, head_reduction=how, targets=targets)
    with unchanged(any_model):
        found, nll_again, order = flows(any_model, prompt, head_reduction=how, targets=targets, checkpoint=True)
    assert order == list(reversed(range(any_model.cfg.n_layers))), "each layer once, the deepest first"
    assert torch.equal(nll, nll_again)
    for layer, flow in expected.items():
        assert flow.max() > 1e-5
        torch.testing.assert_close(found[layer], flow, rtol=1e-5, atol=1e-6 * flow.max().item())


def test_of_an_unfrozen_model_within_no_grad(build: Callable[..., HookedModel], prompt: SoftPrompt, unchanged) -> None:
    frozen = saliency(build("plain"), TOKENS, prompt, N_QUESTION)
    model = build("plain").requires_grad_(True)
    with unchanged(model), torch.no_grad():
        found = saliency(model, TOKENS, prompt, N_QUESTION, checkpoint=True)
    torch.testing.assert_close(found, frozen, rtol=1e-5, atol=1e-7)


def test_meets_the_pattern_that_a_hook_wrote(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """A knock-out of the caller's acts in both runs."""

    def cut(pattern: Tensor, hook: HookPoint) -> Tensor:
        changed = pattern.clone()
        changed[:, :, 12, 2] = 0
        return changed

    with any_model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", cut)]):
        plain, again = (saliency(any_model, TOKENS, prompt, N_QUESTION, checkpoint=c) for c in (False, True))
    assert plain[1, 12, 2] == again[1, 12, 2] == 0
    assert plain[1, 12, 1] > 0
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6 * plain.max().item())


def test_noise_of_the_global_generator_is_the_same_noise(any_model: HookedModel, prompt: SoftPrompt) -> None:
    found = []
    for checkpoint in (False, True):
        torch.manual_seed(3)
        with any_model.hooks(fwd_hooks=[("blocks.0.hook_attn_out", lambda x, hook: x + 0.3 * torch.randn_like(x))]):
            found.append(saliency(any_model, TOKENS, prompt, N_QUESTION, checkpoint=checkpoint))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6 * found[0].max().item())


@pytest.mark.parametrize("layer", [0, 1])
def test_a_hook_that_changes_from_call_to_call_is_refused(
    any_model: HookedModel, prompt: SoftPrompt, layer: int, unchanged
) -> None:
    calls: list[int] = []

    def drift(mlp_out: Tensor, hook: HookPoint) -> Tensor:
        calls.append(1)
        return mlp_out * (1 + 0.01 * len(calls))

    with unchanged(any_model), any_model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", drift)]):
        saliency(any_model, TOKENS, prompt, N_QUESTION)
        with pytest.raises(DPCInterpError, match=r"block . came out otherwise .* checkpoint=False"):
            saliency(any_model, TOKENS, prompt, N_QUESTION, checkpoint=True)


def test_blocks_are_restored(any_model: HookedModel) -> None:
    def forwards() -> list[object]:
        return [block.__dict__.get("forward") for block in any_model.blocks]

    before = forwards()

    def fail() -> None:
        with checkpointed(any_model):
            assert None not in forwards()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert forwards() == before


def test_a_pattern_off_the_loss_path_is_refused(build: Callable[..., HookedModel], prompt: SoftPrompt) -> None:
    for layer in (0, 1):
        model = build("gqa")
        model.add_hook(f"blocks.{layer}.attn.hook_z", lambda z, hook: z.detach())
        with pytest.raises(DPCInterpError, match=f"pattern of layer {layer}"):
            saliency(model, TOKENS, prompt, N_QUESTION, checkpoint=True)
