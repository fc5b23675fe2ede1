"""Gradient checkpointing by block: activation memory that hardly grows with depth (Chen et al. 2016, arXiv 1604.06174).

Within `checkpointed(model)` a forward pass stores only the input of each block, and the backward pass runs the block
again to recover its activations. Hooks inside the blocks therefore fire twice and must give the same output both times;
a block whose activations differ in the second run raises `DPCInterpError`.

The second run ends at the last activation that the backward pass needs: the one that the MLP's last matrix multiplies,
except where a norm follows. That product is a quarter of a Llama's block. What comes after it fires once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.hooks import RemovableHandle
from transformers import Cache

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel

MAX_ULPS = 32
"""Largest difference between two runs of a block, in machine epsilons of the largest number that is compared."""


@contextmanager
def checkpointed(model: HookedModel) -> Iterator[None]:
    """Recompute each block in the backward pass; the blocks are restored afterwards, also on an exception.

    Both the forward and the backward pass must run inside the context.

    Args:
        model: any supported model.

    Raises:
        DPCInterpError: in the backward pass, if a block's activations differ from those of the forward pass.
    """
    blocks: list[Any] = list(model.blocks)
    instance_forwards = [block.__dict__.get("forward") for block in blocks]
    ends = [_last_activation(block) for block in blocks]
    stops_early = all(end is not None for end in ends)
    recomputed = [_RecomputedBlock(layer, block.forward, not stops_early) for layer, block in enumerate(blocks)]
    handles: list[RemovableHandle] = []
    try:
        for block, end, runs in zip(blocks, ends, recomputed, strict=True):
            # through __dict__, because a bridge passes `block.forward = ...` on to the block that it wraps
            block.__dict__["forward"] = runs.forward
            if stops_early:
                handles.append(end.register_forward_hook(runs.check_activation))
        with set_checkpoint_early_stop(stops_early):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for block, before in zip(blocks, instance_forwards, strict=True):
            block.__dict__.pop("forward", None)
            if before is not None:
                block.__dict__["forward"] = before


def _last_activation(block: Any) -> Any:
    """The hook point of the last activation that the backward pass of a block needs; None: its output."""
    return None if hasattr(block, "ln2_post") else getattr(getattr(block, "mlp", None), "hook_post", None)


class _RecomputedBlock:
    """Runs one block under `checkpoint` and compares its second run with the first.

    Args:
        layer: index of the block.
        forward: its own forward method.
        check_output: whether the outputs are compared; otherwise `check_activation` must be a hook on an activation.
    """

    def __init__(self, layer: int, forward: Callable[..., Any], check_output: bool):
        self._layer, self._forward, self._check_output = layer, forward, check_output
        self._first: list[Tensor] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the block's forward method."""
        # the second run would append its tokens to Hugging Face's cache again
        args = tuple(None if isinstance(value, Cache) else value for value in args)
        kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        first: list[Tensor] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            self._first = first
            output = self._forward(*args, **kwargs)
            if self._check_output:
                # to keep it costs no memory: the next block stores it as its input
                residual = (output[0] if isinstance(output, tuple) else output).detach()
                self._compare(residual, residual.abs())
            return output

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def check_activation(self, module: Module, args: Any, activation: Tensor) -> None:
        """Compare the sum over each position's neurons, a forward hook."""
        neurons = activation.detach().float()
        self._compare(neurons.sum(-1), neurons.abs().sum(-1), torch.finfo(activation.dtype).eps)

    def _compare(self, values: Tensor, sizes: Tensor, eps: float | None = None) -> None:
        """Keep the values of the first run; in the second, raise if they differ by more than rounding."""
        if not self._first:
            self._first.append(values)
            return
        first = self._first.pop()
        allowed = MAX_ULPS * (eps or torch.finfo(values.dtype).eps) * sizes.max()
        # `not ... <=` rather than `>`, so that a NaN counts as a difference
        if not torch.equal(first, values) and not (first - values).abs().max() <= allowed:
            raise DPCInterpError(
                f"block {self._layer} computed something else when it was recomputed; one of your hooks changes from "
                "call to call: use gradient_checkpointing=False"
            )
