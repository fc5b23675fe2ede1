"""Attention sinks among the virtual tokens, measured by the size of their residual stream (docs/method.md, section 3).

A few positions of a language model, mostly the first one, take attention that has nowhere else to go. Their residual
stream is tens to thousands of times as large as that of other positions from the middle layers on (massive activations,
Sun et al. 2024, arXiv 2402.17762). Flow from such a position says little about what the prompt does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.models.hooked import CachedDecoding, Hook, HookedModel
from dpc_interp.prompts.prefill import prefill_prompt

SINK_RATIO = 10.0
"""A virtual token is a sink where its residual norm is above this many medians over the prompt.

Measured in the middle layers of the bundled prompts: sinks of SmolLM2 113 to 187, any other virtual token at most 3.2.
"""


def attention_sinks(model: HookedModel, vectors: Float[Tensor, "pos d_model"], start: int = 0) -> tuple[int, ...]:
    """The virtual tokens that are attention sinks: the first one, and those of a residual stream far above the rest.

    Attention is causal, so that the residual stream of a virtual token does not depend on the question: one forward
    pass of the prompt alone finds them.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        vectors: what the model reads from position 0 on.
        start: position of the first virtual token, where other vectors precede the prompt.

    Returns:
        0 and every virtual token whose residual norm after a layer of the middle third is above `SINK_RATIO` medians
        over the other virtual tokens (the first one, which mostly is a sink, excluded), counted from the first one, in
        ascending order. More than half of them cannot be sinks.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.attention_sinks(dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story").vectors)
        (0,)
    """
    return prefill_with_sinks(model, vectors, start)[0]


def prefill_with_sinks(
    model: HookedModel, vectors: Float[Tensor, "pos d_model"], start: int = 0
) -> tuple[tuple[int, ...], CachedDecoding]:
    """`attention_sinks`, and the cache of one row that the pass leaves, as `prefill_prompt` returns it.

    Args:
        model, vectors, start: see `attention_sinks`.
    """
    n_layers = model.cfg.n_layers
    ratios: list[Float[Tensor, " n_virtual"]] = []

    def measure(resid: Float[Tensor, "1 pos d_model"], hook: HookPoint) -> None:
        norms = resid[0, start:].float().norm(dim=-1)
        ratios.append(norms / norms[1:].median())

    middle = range(n_layers // 3, max(n_layers // 3 + 1, 2 * n_layers // 3))
    hooks: list[Hook] = [(f"blocks.{layer}.hook_resid_post", measure) for layer in middle]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        cache = prefill_prompt(model, vectors, 1)
    above = torch.stack(ratios).amax(dim=0) > SINK_RATIO
    return tuple(sorted({0, *above.nonzero().flatten().tolist()})), cache
