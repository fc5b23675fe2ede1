"""The error for numbers that are not finite: which block is the first at fault, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.models.hooked import Hook, HookedModel


@torch.no_grad()
def non_finite_error(model: HookedModel, forward: Callable[[], object]) -> NonFiniteError:
    """The error for a loss that is not finite.

    Args:
        model: the model whose forward pass gave the loss.
        forward: runs that pass once more, to find the first block whose output is not finite.

    Returns:
        The error, to be raised by the caller.
    """
    bad_layers: list[int] = []

    def check_block(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> None:
        if not torch.isfinite(resid).all():
            bad_layers.append(hook.layer())

    blocks: list[Hook] = [(f"blocks.{layer}.hook_resid_post", check_block) for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=blocks):
        forward()
    what = f"the output of block {bad_layers[0]} is not finite" if bad_layers else "the loss is not finite"
    return NonFiniteError(f"{what}; {suggested_fix(model)}")


def suggested_fix(model: HookedModel) -> str:
    """What to do about NaN or infinity, as the second half of an error message.

    Args:
        model: the model that gave the number. float16 overflows at 65,504; the other common dtypes do not in practice.
    """
    if model.cfg.dtype == torch.float16:
        return "load the model in float32 or bfloat16"
    return "look for NaN in the weights and in your hooks"
