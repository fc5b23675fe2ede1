"""Where a forward pass that ends in NaN or infinity first goes wrong, and what to do about it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import logits_behind, write_prompt

OTHER_DTYPE = "load the model in float32 or bfloat16"


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
    mend = OTHER_DTYPE if model.cfg.dtype == torch.float16 else "look for NaN in the weights and in your hooks"
    return NonFiniteError(f"{where}; {mend}")
