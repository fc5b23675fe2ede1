"""Gradient checkpointing by block: activation memory that hardly grows with depth (Chen et al. 2016, arXiv 1604.06174).

Within `checkpointed(model)` a forward pass stores only the input of each block, and the backward pass runs the block
again to recover its activations. Hooks inside the blocks therefore fire twice and must give the same output both times;
a block whose second output differs raises `DPCInterpError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import Cache

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel

MAX_ULPS = 32
"""Largest difference between two runs of a block, in machine epsilons of its largest activation."""


@contextmanager
def checkpointed(model: HookedModel) -> Iterator[None]:
    """Recompute each block in the backward pass; the blocks are restored afterwards, also on an exception.

    Both the forward and the backward pass must run inside the context.

    Args:
        model: any supported model.

    Raises:
        DPCInterpError: in the backward pass, if a block's output differs from that of the forward pass.
    """
    blocks: list[Module] = list(model.blocks)
    instance_forwards = [block.__dict__.get("forward") for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            # through __dict__, because a bridge passes `block.forward = ...` on to the block that it wraps
            block.__dict__["forward"] = _recompute_forward(layer, block.forward)
        # early stopping would end the second run before the block's output, which `_check_recomputation` needs
        with set_checkpoint_early_stop(False):
            yield
    finally:
        for block, before in zip(blocks, instance_forwards, strict=True):
            block.__dict__.pop("forward", None)
            if before is not None:
                block.__dict__["forward"] = before


def _recompute_forward(layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward method of a block, checkpointed."""

    def checkpointed_forward(*args: Any, **kwargs: Any) -> Any:
        # the second run would append its tokens to Hugging Face's cache again
        args = tuple(None if isinstance(value, Cache) else value for value in args)
        kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        first_output: list[Tensor] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            residual = (output[0] if isinstance(output, tuple) else output).detach()
            if not first_output:
                first_output.append(residual)  # costs no memory: the next block stores it as its input
            else:
                _check_recomputation(layer, first_output.pop(), residual)
            return output

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    return checkpointed_forward


def _check_recomputation(layer: int, first: Tensor, second: Tensor) -> None:
    allowed = MAX_ULPS * torch.finfo(first.dtype).eps * first.abs().max()
    # `not ... <=` rather than `>`, so that a NaN counts as a difference
    if not torch.equal(first, second) and not (first - second).abs().max() <= allowed:
        raise DPCInterpError(
            f"block {layer} gave another output when it was recomputed; one of your hooks changes from call to call: "
            "use gradient_checkpointing=False"
        )
