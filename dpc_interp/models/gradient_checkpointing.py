"""Gradient checkpointing by block: activation memory that hardly grows with depth (Chen et al. 2016, arXiv 1604.06174).

Within `checkpointed(model)` a forward pass stores only the input of each block, and the backward pass runs the block
again to recover its activations. Hooks inside the blocks therefore fire twice and must give the same output both times;
a block whose activations differ in the second run raises `DPCInterpError`.

The second run ends at the last activation that the backward pass needs: the one that the MLP's last matrix multiplies.
That product is a quarter of a Llama's block. A block with hooks outside its attention is run to its end.
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
from transformer_lens.hook_points import HookPoint
from transformers import Cache

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel

MAX_ULPS = 16
"""Largest difference between two runs of a block: in machine epsilons of the norm of a position's activations, or of
the largest number of the block's output."""


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
    activations = [_last_activation(block) for block in blocks]
    stops_early = all(activation is not None for activation in activations)
    recomputed = [_RecomputedBlock(layer, block.forward, not stops_early) for layer, block in enumerate(blocks)]
    handles: list[RemovableHandle] = []
    try:
        for block, activation, wrapper in zip(blocks, activations, recomputed, strict=True):
            # through __dict__, because a bridge passes `block.forward = ...` on to the block that it wraps
            block.__dict__["forward"] = wrapper.forward
            if stops_early:
                handles.append(activation.register_forward_hook(wrapper.check_activation))
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
    mlp = getattr(block, "mlp", None)
    point = getattr(mlp, "hook_post", None)
    if hasattr(block, "ln2_post") or point is getattr(mlp, "hook_out", None):  # a mixture of experts has no other point
        return None
    in_attention = set(block.attn.modules())
    points = (p for p in block.modules() if isinstance(p, HookPoint) and p not in in_attention)
    # a hook after the activation may keep a tensor for the backward pass, and would fire again without being compared
    return None if any(p._forward_hooks for p in points) else point


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
                self._compare(residual, residual.abs().max(), torch.finfo(residual.dtype).eps)
            return output

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def check_activation(self, module: Module, args: Any, activation: Tensor) -> None:
        """Compare the sum and the norm of each position's activations, a forward hook."""
        precise = activation.detach().float()
        norm = precise.norm(dim=-1)
        self._compare(torch.stack([precise.sum(-1), norm]), norm, torch.finfo(activation.dtype).eps)

    def _compare(self, values: Tensor, scale: Tensor, eps: float) -> None:
        """Keep the values of the first run; in the second, raise if they differ by more than rounding."""
        if not self._first:
            self._first.append(values)
            return
        first = self._first.pop()
        # `all(<=)` rather than `any(>)`, so that a NaN counts as a difference
        if not torch.equal(first, values) and not ((first - values).abs() <= MAX_ULPS * eps * scale).all():
            raise DPCInterpError(
                f"block {self._layer} has other activations when it is recomputed; one of your hooks changes from call "
                "to call: use gradient_checkpointing=False"
            )
