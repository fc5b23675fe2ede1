"""Where numbers first cease to be finite, and what to do about it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import logits_behind, write_prompt


@torch.no_grad()
def not_finite(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], vectors: Float[Tensor, "n_virtual d_model"]
) -> NonFiniteError:
    """The error for a loss that is not finite: one more forward pass tells the first block at fault."""
    wrong: list[int] = []

    def look(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> None:
        if not torch.isfinite(resid).all():
            wrong.append(hook.layer())

    blocks = [(f"blocks.{layer}.hook_resid_post", look) for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=[("hook_embed", write_prompt(vectors.detach())), *blocks]):
        logits_behind(model, tokens, vectors.shape[0])
    where = f"what block {wrong[0]} writes is not finite" if wrong else "the loss is not finite"
    return NonFiniteError(f"{where}; {mend_of(model)}")


def mend_of(model: HookedModel) -> str:
    """What to do: float16 ends at 65,504, the others of the usual numbers do not end in practice."""
    if model.cfg.dtype == torch.float16:
        return "load the model in float32 or bfloat16"
    return "look for NaN in the weights and in your hooks"
