"""Saliency with checkpointing equals saliency without, on both backends, and the model is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module
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


@pytest.fixture(params=["attn.hook_z", "hook_attn_out", "hook_mlp_out"])
def hooked_output(request: pytest.FixtureRequest) -> str:
    """Where a hook changes from call to call; only for the first does the second run end before the last product."""
    return request.param


def changing(factors: Iterable[float]) -> Callable[[Tensor, HookPoint], Tensor]:
    """A hook that multiplies by a tensor, which autograd keeps, and by another one in each call."""
    values = iter(factors)
    return lambda output, hook: output * torch.full((), next(values), dtype=torch.float64).to(output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [0, 1])
def test_hook_that_changes_from_call_to_call_raises(
    build: Callable[..., HookedModel], prompt: SoftPrompt, layer: int, dtype: torch.dtype, hooked_output: str
) -> None:
    model = build("gqa", dtype=dtype)
    size = 1.01 if dtype == torch.float32 else 2.0
    with model.hooks(fwd_hooks=[(f"blocks.{layer}.{hooked_output}", changing([1.0, size, size**2, size**3]))]):
        saliency(model, TOKENS, prompt, N_QUESTION)
        with pytest.raises(DPCInterpError, match=rf"block {layer} .* recomputed; .* gradient_checkpointing=False"):
            saliency(model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)


def test_a_model_is_left_unchanged_when_it_raises(
    any_model: HookedModel, prompt: SoftPrompt, hooked_output: str, unchanged: Callable
) -> None:
    hook = changing([1.0, 1.01, 1.02, 1.03])
    with (
        unchanged(any_model),
        any_model.hooks(fwd_hooks=[(f"blocks.1.{hooked_output}", hook)]),
        pytest.raises(DPCInterpError, match="block 1 "),
    ):
        saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)


def test_hook_that_changes_within_rounding_is_accepted(
    any_model: HookedModel, prompt: SoftPrompt, hooked_output: str
) -> None:
    """The second call adds one unit in the last place of each number, as another kernel might."""
    plain = saliency(any_model, TOKENS, prompt, N_QUESTION)
    hook = changing([1.0, 1.0 + torch.finfo(torch.float32).eps])
    with any_model.hooks(fwd_hooks=[(f"blocks.1.{hooked_output}", hook)]):
        drifted = saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
    torch.testing.assert_close(drifted, plain, rtol=1e-4, atol=1e-5 * plain.max().item())


@pytest.mark.parametrize(("name", "n_ends"), [("attn.hook_z", 1), ("hook_resid_post", 2)])
def test_the_second_run_ends_before_the_last_product(
    any_model: HookedModel, prompt: SoftPrompt, name: str, n_ends: int
) -> None:
    """Unless a hook is outside the attention. A module's own hook fires where the MLP is run to its end."""
    ends: list[int] = []
    mlp: Any = any_model.blocks[1].mlp
    handle = mlp.register_forward_hook(lambda *args: ends.append(1))
    with any_model.hooks(fwd_hooks=[(f"blocks.1.{name}", lambda value, hook: value)]):
        saliency(any_model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
    handle.remove()
    assert len(ends) == n_ends


def test_blocks_whose_output_is_compared() -> None:
    """A norm after the MLP needs its output, and the point of a mixture of experts is its output."""

    def block(**mlp_points: HookPoint) -> Module:
        made, mlp = Module(), Module()
        for name, point in mlp_points.items():
            setattr(mlp, name, point)
        made.attn, made.mlp = Module(), mlp
        return made

    activation, output = HookPoint(), HookPoint()
    assert module._last_activation(block(hook_post=activation, hook_out=output)) is activation
    assert module._last_activation(block(hook_post=output, hook_out=output)) is None
    assert module._last_activation(block()) is None
    normed = block(hook_post=activation)
    normed.ln2_post = Module()
    assert module._last_activation(normed) is None


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


@pytest.mark.parametrize("frozen", [True, False])
def test_pattern_off_the_loss_path_raises(build: Callable[..., HookedModel], prompt: SoftPrompt, frozen: bool) -> None:
    for layer, point in ((0, "blocks.0.attn.hook_z"), (1, "blocks.1.attn.hook_z"), (0, "ln_final.hook_normalized")):
        model = build("gqa").requires_grad_(not frozen)
        model.add_hook(point, lambda z, hook: z.detach())
        with pytest.raises(DPCInterpError, match=f"pattern of layer {layer}"):
            saliency(model, TOKENS, prompt, N_QUESTION, gradient_checkpointing=True)
