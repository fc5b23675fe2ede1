"""Where a soft prompt enters a model: at the output of its embedding table, as `inputs_embeds` do in Hugging Face.

PEFT hands its vectors to a model as `inputs_embeds`. What the model does to embeddings after looking them up (BLOOM's
LayerNorm, Granite's multiplier, OPT-350m's projection) it does to these vectors too. What the table itself does
(Gemma's factor sqrt(d_model)) it does to tokens only. In a `HookedTransformer` the vectors are therefore written at
`hook_embed`. In a `TransformerBridge` they are written at `embed.hook_out`: its `hook_embed` comes after the LayerNorm
of BLOOM.

For a bridge this is verified once, at the first use of a prompt: short random vectors are read by way of the hook and
as `inputs_embeds`, and the logits must be equal. A model that treats them differently, such as one with embeddings of
each layer that it looks up by token, is refused, because results would not be PEFT's.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.lens import HookedTransformer

N_VECTORS, N_TOKENS = 2, 3
"""Positions of the check."""
MAX_ERROR = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest error of logits, relative to their largest deviation from their mean. Both passes run the same kernels on the
same shapes, so that a model with the right entry gives nearly 0."""

_VERIFIED: WeakSet[Any] = WeakSet()


def embed_hook_name(model: HookedModel) -> str:
    """Name of the hook point where the vectors of a prompt are written.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
    """
    return "hook_embed" if isinstance(model, HookedTransformer) else "embed.hook_out"


def prompt_width(model: HookedModel) -> int:
    """Width of the vectors that a model reads: that of its embedding table, which is `d_model` in most models.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
    """
    return model.cfg.d_model if isinstance(model, HookedTransformer) else model.W_E.shape[1]


def check_entry(model: HookedModel) -> None:
    """Check, once for each bridge, that vectors written at its hook act as `inputs_embeds` do.

    Two forward passes over five positions, during which all hooks are off.

    Args:
        model: a `HookedTransformer`, which has no other way in and is not checked, or a `TransformerBridge`.

    Raises:
        DPCInterpError: the logits differ, or the wrapped model cannot read `inputs_embeds`.
    """
    if isinstance(model, HookedTransformer) or model in _VERIFIED:
        return
    wrapped: Any = model.original_model
    name, advice = model.cfg.model_name, "load a model of another family"
    if "inputs_embeds" not in inspect.signature(wrapped.forward).parameters:
        raise DPCInterpError(f"{name!r} cannot read inputs_embeds, so no soft prompt either; {advice}")
    with torch.no_grad(), _undisturbed(model):
        vectors, tokens = _sample_input(model)
        hooked = _logits_by_hook(model, vectors, tokens)
        try:
            embedded = torch.cat([vectors, model.embed(tokens[:, N_VECTORS:])[0]])[None]
            expected = wrapped(inputs_embeds=embedded, attention_mask=torch.ones_like(tokens), use_cache=False).logits
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            raise DPCInterpError(
                f"{name!r} cannot read inputs_embeds ({type(error).__name__}), so no soft prompt either; {advice}"
            ) from error
    hooked, expected = hooked.double().cpu(), expected.double().cpu()
    difference = (hooked - expected).abs().max() / (expected - expected.mean(-1, keepdim=True)).abs().max()
    if difference > MAX_ERROR.get(model.W_E.dtype, MAX_ERROR[torch.bfloat16]):
        raise DPCInterpError(
            f"{name!r} treats inputs_embeds, which PEFT's prompts are, otherwise than embeddings of tokens "
            f"(logits differ by {difference:.0%}), so it cannot read a soft prompt; {advice}"
        )
    if torch.isfinite(difference):  # NaN and infinity have an error of their own, raised by the caller's pass
        _VERIFIED.add(model)


def _sample_input(model: Any) -> tuple[Float[Tensor, "n_vectors width"], Tensor]:
    """Random vectors with the spread of the embeddings, and tokens whose first two are placeholders."""
    device, n_tokens = model.W_E.device, model.W_E.shape[0]
    tokens = torch.tensor([[0] * N_VECTORS + [(7 + 11 * i) % n_tokens for i in range(N_TOKENS)]], device=device)
    embedded = model.embed(tokens[:, N_VECTORS:])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(N_VECTORS, embedded.shape[-1], generator=generator, device="cpu")
    return (noise * embedded.float().std().cpu()).to(embedded), tokens


def _logits_by_hook(model: Any, vectors: Tensor, tokens: Tensor) -> Tensor:
    def write(embed: Tensor, hook: object) -> Tensor:
        return torch.cat([vectors[None], embed[:, N_VECTORS:]], dim=1)

    with model.hooks(fwd_hooks=[(embed_hook_name(model), write)]):
        return model(tokens, attention_mask=torch.ones_like(tokens))


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Without the hooks of the caller, and without dropout."""
    hooks = [(point, point._forward_hooks, point._backward_hooks) for point in model.hook_dict.values()]
    modules = {*model.modules(), *model.original_model.modules()}  # a bridge lists its own components alone
    training = [module for module in modules if module.training]
    try:
        for point, _, _ in hooks:
            point._forward_hooks, point._backward_hooks = OrderedDict(), OrderedDict()
        for module in training:
            module.training = False
        yield
    finally:
        for point, forward_hooks, backward_hooks in hooks:
            point._forward_hooks, point._backward_hooks = forward_hooks, backward_hooks
        for module in training:
            module.training = True
