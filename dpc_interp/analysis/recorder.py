"""The saliency that the backward pass makes of each layer, in blocks of rows.

    S_l = sum_h A[l,h] * dL/dA[l,h]        I_l = |S_l|

The backward pass of fused attention (`attention/backward.py`) hands out A * dL/dA for some rows at a time. Where a
layer keeps its pattern, a hook records it, and autograd computes its gradient. In both cases heads are reduced here,
and the caller's reduction reads the blocks of a layer, each freed before the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.options import HeadReduction
from dpc_interp.attention.backward import BLOCK_SIZE, MIN_ROWS, PatternGradient, ProductBlock
from dpc_interp.models.hooked import Hook

Reduced = TypeVar("Reduced")


class FlowBlock(NamedTuple):
    """Some rows of one layer's saliency I.

    Attributes:
        dest: the positions of the rows.
        src: the positions of the columns; I is 0 at all others.
        values: I, float32, zero where the source is not before the destination.
    """

    dest: slice
    src: slice
    values: Float[Tensor, "batch dest src"]


Reduction = Callable[[Iterable[FlowBlock]], Reduced]
"""What a caller makes of one layer."""


def whole_map(blocks: Iterable[FlowBlock]) -> Float[Tensor, "batch dest src"]:
    """Put the blocks of a layer together; a `Reduction`.

    Args:
        blocks: of one layer, in order; the last one ends at the last source.
    """
    parts = list(blocks)
    n_src = parts[-1].src.stop
    return torch.cat([torch.nn.functional.pad(b.values, (b.src.start, n_src - b.src.stop)) for b in parts], dim=1)


class SaliencyRecorder(Generic[Reduced]):
    """Reduces the saliency of each layer as soon as the backward pass reaches it.

    Args:
        reduce: called once a layer; again for each smaller loss scale of a float16 model.
        head_reduction: see `saliency`.
        device: of the model's input.
        first_destination: positions before it have no rows.

    Attributes:
        loss_scale: factor of the gradients of the next backward pass, which the saliency is divided by.
        reduced: by layer, what `reduce` returned.
        is_finite: by layer, whether the saliency is finite (a tensor, so that a GPU is not waited for).
        gradient: what `fused_attention` does with the gradients of its layers.
    """

    def __init__(
        self,
        reduce: Reduction[Reduced],
        head_reduction: HeadReduction,
        device: torch.device,
        first_destination: int = 0,
    ):
        self.reduced: dict[int, Reduced] = {}
        self.is_finite: dict[int, Tensor] = {}
        self.loss_scale = 1.0
        graph_root = torch.zeros((), dtype=torch.float32, device=device, requires_grad=True)
        self.gradient = PatternGradient(self._record, graph_root, first_destination)
        self._reduce, self._head_reduction = reduce, head_reduction

    def hooks(self, loss_mask: Bool[Tensor, "batch pos"], pattern_layers: Iterable[int]) -> list[Hook]:
        """Forward hooks that record patterns and keep the positions that predict a token in the loss.

        Args:
            loss_mask: True at the tokens in the loss, which are the last positions of the pass.
            pattern_layers: the layers without fused attention.
        """
        width, predicts = loss_mask.shape[1], loss_mask[:, 1:]

        def keep_predicted_positions(
            resid: Float[Tensor, "batch pos d_model"], hook: HookPoint
        ) -> Float[Tensor, "1 counted d_model"]:
            return resid[:, -width:-1][predicts][None]  # avoid [batch, pos, d_vocab] logits outside the loss

        patterns: list[Hook] = [(f"blocks.{i}.attn.hook_pattern", self._record_pattern) for i in pattern_layers]
        return [*patterns, ("unembed.hook_in", keep_predicted_positions)]

    def _record_pattern(self, pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Tensor | None:
        layer = hook.layer()
        if not pattern.requires_grad and layer > 0:
            return None  # it is not on the loss path

        def on_pattern_grad(pattern: Tensor, grad: Tensor) -> None:
            self._record(layer, pattern_blocks(pattern, grad, self.gradient.first_query))

        return _RecordedPattern.apply(pattern, self.gradient.graph_root, on_pattern_grad)

    def _record(self, layer: int, blocks: Iterator[ProductBlock]) -> None:
        finite: list[Tensor] = []

        def flow_blocks() -> Iterator[FlowBlock]:
            for block in blocks:
                flow = reduce_heads(block, self._head_reduction)
                if self.loss_scale != 1.0:
                    flow.values.div_(self.loss_scale)
                finite.append(torch.isfinite(flow.values.sum()))
                yield flow

        read = flow_blocks()
        self.reduced[layer] = self._reduce(read)
        for _ in read:  # a reduction may need no block, and the saliency is checked all the same
            pass
        self.is_finite[layer] = torch.stack(finite).all()


class _RecordedPattern(torch.autograd.Function):
    """Identity whose backward pass calls `on_grad(pattern, grad)`.

    The pattern is saved as autograd saves any tensor, so that under gradient checkpointing it is the recomputed one.
    """

    @staticmethod
    def forward(ctx: Any, pattern: Tensor, graph_root: Tensor, on_grad: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(pattern)
        ctx.on_grad = on_grad
        return pattern.view_as(pattern)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (pattern,) = ctx.saved_tensors
        ctx.on_grad(pattern, grads[0])
        return grads[0] if ctx.needs_input_grad[0] else None, grads[0].new_zeros((), dtype=torch.float32), None


def pattern_blocks(
    pattern: Float[Tensor, "batch head dest src"],
    grad: Float[Tensor, "batch head dest src"],
    first_destination: int = 0,
) -> Iterator[ProductBlock]:
    """A * dL/dA of a layer with its pattern, as `fused_attention` gives it.

    Args:
        pattern: A.
        grad: dL/dA.
        first_destination: positions before it are in no block.
    """
    n_before, n_src = pattern.shape[3] - pattern.shape[2], pattern.shape[3]
    n_rows = max(MIN_ROWS, BLOCK_SIZE // (pattern.shape[0] * pattern.shape[1] * n_src))
    for start in range(max(0, first_destination - n_before), pattern.shape[2], n_rows):
        rows = slice(start, start + n_rows)
        products = pattern[:, :, rows].float() * grad[:, :, rows].float()
        yield ProductBlock(n_before + start, slice(0, n_src), products)


def reduce_heads(block: ProductBlock, reduction: HeadReduction) -> FlowBlock:
    """I = |A * dL/dA| reduced over heads, with a zero diagonal.

    Args:
        block: of one layer.
        reduction: how heads are reduced.
    """
    first, src, products = block
    if reduction == "abs_of_sum":
        flow = products.sum(1).abs_()
    else:
        flow = products.abs().sum(1) if reduction == "sum_of_abs" else products.abs().mean(1)
    flow = flow.float()
    flow.diagonal(offset=first - src.start, dim1=1, dim2=2).zero_()
    return FlowBlock(slice(first, first + flow.shape[1]), src, flow)
