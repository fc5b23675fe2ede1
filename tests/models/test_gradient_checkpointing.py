"""Saliency with checkpointing equals saliency without, on both backends, and the model is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import DPCInterpError, SoftPrompt, saliency
from dpc_interp.analysis.recorder import FlowBlock, whole_map
from dpc_interp.analysis.saliency import HeadReduction, saliency_pass
from dpc_interp.models import gradient_checkpointing as module
from dpc_interp.models.gradient_checkpointing import checkpointed
from dpc_interp.models.hooked import HookedModel

N_QUESTION = 6
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2])
SHORT = torch.tensor([1, 44, 31, 62, 9, 13, 70, 2])


@pytest.mark.parametrize("head_reduction", ["abs_of_sum", "sum_of_abs", "mean_of_abs"])
def test_saliency_equals_that_without_checkpointing(
    any_model: HookedModel, prompt: SoftPrompt, head_reduction: HeadReduction, unchanged: Callable
) -> None:
    """Of a padded batch; each layer is reduced once, the deepest first."""
    reduced: list[Tensor] = []

    def reduce(blocks: Iterable[FlowBlock]) -> Tensor:
        reduced.append(whole_map(blocks))
        return reduced[-1]

    inputs = ([TOKENS, SHORT], [N_QUESTION, 4], prompt.vectors)
    options = {"head_reduction": head_reduction, "targets": [TOKENS.roll(1), SHORT.roll(1)]}
    expected = saliency_pass(any_model, *inputs, whole_map, **options)
    with unchanged(any_model):
        result = saliency_pass(any_model, *inputs, reduce, **options, gradient_checkpointing=True)
    assert len(reduced) == any_model.cfg.n_layers
    assert all(layer is flow for layer, flow in zip(result.layers, reversed(reduced), strict=True))
    assert torch.equal(result.nll, expected.nll)
    for layer, flow in zip(result.layers, expected.layers, strict=True):
        assert flow.max() > 1e-5
        torch.testing.assert_close(layer, flow, rtol=1e-5, atol=1e-6 * flow.max().item())


def test_unfrozen_model_within_no_grad(
    build: Callable[..., HookedModel], prompt: SoftPrompt, unchanged: Callable
) -> None:
    frozen = saliency(build("plain"), TOKENS, prompt, N_QUESTION)
    model = build("plain").requires_grad_(True)
    with unchanged(model), torch.no_grad():
        unfrozen = saliency(model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
    torch.testing.assert_close(unfrozen, frozen, rtol=1e-5, atol=1e-7)


def test_hook_that_changes_the_pattern_acts_in_both_runs(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """A knocked-out edge has no saliency, and the others have that without checkpointing."""

    def cut(pattern: Tensor, hook: HookPoint) -> Tensor:
        changed = pattern.clone()
        changed[:, :, 12, 2] = 0
        return changed

    with any_model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", cut)]):
        plain = saliency(any_model, TOKENS, prompt, N_QUESTION)
        recomputed = saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
    assert plain[1, 12, 2] == recomputed[1, 12, 2] == 0
    assert plain[1, 12, 1] > 0
    torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-6 * plain.max().item())


def test_random_hook_draws_the_same_noise_in_both_runs(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """Noise from the global generator, whose state is restored for the second run."""
    results = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(3)
        with any_model.hooks(fwd_hooks=[("blocks.0.hook_attn_out", lambda x, hook: x + 0.3 * torch.randn_like(x))]):
            results.append(
                saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=gradient_checkpointing)
            )
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6 * results[0].max().item())


@pytest.fixture(params=[True, False], ids=["stops early", "whole blocks"])
def hooked_output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An output that a hook changes and that the second run computes; whole blocks are run where a norm ends them."""
    if request.param:
        return "hook_attn_out"
    monkeypatch.setattr(module, "_last_activation", lambda block: None)
    return "hook_mlp_out"


@pytest.mark.parametrize("layer", [0, 1])
def test_hook_that_changes_from_call_to_call_raises(
    any_model: HookedModel, prompt: SoftPrompt, layer: int, hooked_output: str, unchanged: Callable
) -> None:
    calls: list[int] = []

    def drift(output: Tensor, hook: HookPoint) -> Tensor:
        calls.append(1)
        return output * (1 + 0.01 * len(calls))

    with unchanged(any_model), any_model.hooks(fwd_hooks=[(f"blocks.{layer}.{hooked_output}", drift)]):
        saliency(any_model, TOKENS, prompt, N_QUESTION)
        with pytest.raises(
            DPCInterpError, match=rf"block {layer} .* when it was recomputed.* gradient_checkpointing=F"
        ):
            saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)


def test_hook_that_changes_within_rounding_is_accepted(
    any_model: HookedModel, prompt: SoftPrompt, hooked_output: str
) -> None:
    """The second call adds one unit in the last place of each number, as another kernel might."""
    calls: list[int] = []

    def drift(output: Tensor, hook: HookPoint) -> Tensor:
        calls.append(1)
        return output * (1 + (len(calls) - 1) * torch.finfo(output.dtype).eps)  # the next number, or the one after

    plain = saliency(any_model, TOKENS, prompt, N_QUESTION)
    with any_model.hooks(fwd_hooks=[(f"blocks.1.{hooked_output}", drift)]):
        drifted = saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
    assert len(calls) == 2
    torch.testing.assert_close(drifted, plain, rtol=1e-4, atol=1e-5 * plain.max().item())


def test_the_second_run_ends_before_the_last_product(any_model: HookedModel, prompt: SoftPrompt) -> None:
    """A hook on the output of the MLP fires once, so it may change from call to call."""
    calls: list[int] = []

    def double(output: Tensor, hook: HookPoint) -> Tensor:
        calls.append(1)
        return output * (2.0 if len(calls) == 1 else torch.nan)

    maps = []
    for gradient_checkpointing in (False, True):
        calls.clear()
        with any_model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", double)]):
            maps.append(saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=gradient_checkpointing))
        assert len(calls) == 1
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-5, atol=1e-6 * maps[0].max().item())


def test_blocks_whose_output_is_compared() -> None:
    """A norm after the MLP needs its output; a mixture of experts has no activation that is hooked."""
    point = HookPoint()
    assert module._last_activation(SimpleNamespace(mlp=SimpleNamespace(hook_post=point))) is point
    assert module._last_activation(SimpleNamespace(mlp=SimpleNamespace(hook_post=point), ln2_post=1)) is None
    assert module._last_activation(SimpleNamespace(mlp=SimpleNamespace())) is None


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


def test_pattern_off_the_loss_path_raises(build: Callable[..., HookedModel], prompt: SoftPrompt) -> None:
    for layer in (0, 1):
        model = build("gqa")
        model.add_hook(f"blocks.{layer}.attn.hook_z", lambda z, hook: z.detach())
        with pytest.raises(DPCInterpError, match=f"pattern of layer {layer}"):
            saliency(model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
