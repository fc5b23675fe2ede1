"""Activation checkpointing by block: memory that does not grow with depth (Chen et al. 2016, arXiv 1604.06174).

Within `checkpointed(model)` a forward pass keeps the input of each block alone; the backward pass runs a block again
when it needs what is in it. Hooks inside the blocks so fire twice, and must give the same both times: a block that
comes out otherwise is refused.
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
from dpc_interp.lm.hooked import HookedModel

ROUNDING = 32
"""Units of rounding, of the largest activation, that two runs of a block may differ by."""


@contextmanager
def checkpointed(model: HookedModel) -> Iterator[None]:
    """Run each block again in the backward pass; the blocks are as before afterwards, also when the body raises.

    Forward and backward pass must both lie inside.
    """
    blocks: list[Module] = list(model.blocks)
    own = [block.__dict__.get("forward") for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            block.__dict__["forward"] = _run_again(layer, block.forward)  # a bridge would hand `block.forward =` on
        with set_checkpoint_early_stop(False):  # or the outputs could not be compared
            yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            block.__dict__.pop("forward", None)
            if before is not None:
                block.__dict__["forward"] = before


def _run_again(layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    def checkpointed_forward(*args: Any, **kwargs: Any) -> Any:
        # Hugging Face's cache would take the second run for more tokens
        args = tuple(None if isinstance(value, Cache) else value for value in args)
        kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        first: list[Tensor] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            residual = (output[0] if isinstance(output, tuple) else output).detach()
            if not first:
                first.append(residual)  # the next block's input, which is kept anyway
            else:
                _refuse_other(layer, first.pop(), residual)
            return output

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    return checkpointed_forward


def _refuse_other(layer: int, first: Tensor, second: Tensor) -> None:
    allowed = ROUNDING * torch.finfo(first.dtype).eps * first.abs().max()
    if not torch.equal(first, second) and not (first - second).abs().max() <= allowed:
        raise DPCInterpError(
            f"block {layer} came out otherwise when it was run again; a hook of yours changes from call to call: "
            "use checkpoint=False"
        )
