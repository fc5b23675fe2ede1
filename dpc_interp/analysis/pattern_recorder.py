"""The attention patterns of a forward pass, and the saliency that the backward pass makes of them.

`PatternRecorder` hooks every pattern in the forward pass. When the backward pass reaches a pattern, its gradient is
multiplied by the pattern, reduced over heads, handed to the caller's reduction and freed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.options import HeadReduction
from dpc_interp.models.hooked import Hook

Reduced = TypeVar("Reduced")


class PatternRecorder(Generic[Reduced]):
    """Reduces the saliency of each layer as soon as the backward pass has its gradient.

    Args:
        reduce: called once a layer with I [batch, destination, source], float32 with a zero diagonal.
        head_reduction: see `saliency`.
        device: of the model's input.

    Attributes:
        loss_scale: factor of the gradients of the next backward pass, which the saliency is divided by.
        reduced: by layer, what `reduce` returned.
        is_finite: by layer, whether the saliency is finite (a tensor, so that a GPU is not waited for).
        graph_root: the scalar that the backward pass ends at; it makes the graph begin at the first pattern.
    """

    def __init__(
        self,
        reduce: Callable[[Float[Tensor, "batch dest src"]], Reduced],
        head_reduction: HeadReduction,
        device: torch.device,
    ):
        self.reduced: dict[int, Reduced] = {}
        self.is_finite: dict[int, Tensor] = {}
        self.loss_scale = 1.0
        self.graph_root = torch.zeros((), dtype=torch.float32, device=device, requires_grad=True)
        self._reduce, self._head_reduction = reduce, head_reduction
        self._first_layer: int | None = None

    def hooks(self, loss_mask: Bool[Tensor, "batch pos"]) -> list[Hook]:
        """Forward hooks that record every pattern and keep the positions that predict a token in the loss.

        Args:
            loss_mask: True at the tokens in the loss, which are the last positions of the pass.
        """
        width, predicts = loss_mask.shape[1], loss_mask[:, 1:]

        def keep_predicted_positions(
            resid: Float[Tensor, "batch pos d_model"], hook: HookPoint
        ) -> Float[Tensor, "1 counted d_model"]:
            return resid[:, -width:-1][predicts][None]  # avoid [batch, pos, d_vocab] logits outside the loss

        def is_pattern(name: str) -> bool:
            return name.endswith("attn.hook_pattern")

        return [(is_pattern, self._record_pattern), ("unembed.hook_in", keep_predicted_positions)]

    def _record_pattern(self, pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Tensor | None:
        layer = hook.layer()
        if not pattern.requires_grad:  # true of the first layer; elsewhere the pattern is not on the loss path
            self._first_layer = layer if self._first_layer is None else self._first_layer
            if layer != self._first_layer:
                return None

        def on_pattern_grad(pattern: Tensor, grad: Tensor) -> None:
            flow = reduce_heads(pattern, grad, self._head_reduction)
            if self.loss_scale != 1.0:
                flow /= self.loss_scale
            self.is_finite[layer] = torch.isfinite(flow.sum())
            self.reduced[layer] = self._reduce(flow)

        return _PatternGradient.apply(pattern, self.graph_root, on_pattern_grad)


class _PatternGradient(torch.autograd.Function):
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
        return grads[0] if ctx.needs_input_grad[0] else None, grads[0].new_zeros(()), None


def reduce_heads(
    pattern: Float[Tensor, "batch head dest src"],
    grad: Float[Tensor, "batch head dest src"],
    reduction: HeadReduction,
) -> Float[Tensor, "batch dest src"]:
    """I = |A * dL/dA| reduced over heads, in float32 with a zero diagonal.

    One head after another, so that no other tensor of the size of a pattern is allocated.
    """
    flow = torch.zeros_like(pattern[:, 0], dtype=torch.float32)
    for head in range(pattern.shape[1]):
        weight, slope = pattern[:, head].float(), grad[:, head].float()
        if reduction == "abs_of_sum":
            flow.addcmul_(weight, slope)
        else:
            flow += (weight * slope).abs_()
    if reduction == "abs_of_sum":
        flow.abs_()
    elif reduction == "mean_of_abs":
        flow /= pattern.shape[1]
    flow.diagonal(offset=flow.shape[2] - flow.shape[1], dim1=1, dim2=2).zero_()
    return flow
