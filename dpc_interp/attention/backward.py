"""The backward pass of attention, from which A * dL/dA is read (docs/method.md, section 2).

It computes the pattern A and its gradient anyway, a block of queries at a time, because with z = A v and
dL/dA[i, j] = (dL/dz[i]) . v[j] the gradient of a score is A (dL/dA - (dL/dz[i]) . z[i]). `PatternGradient` reads the
product A * dL/dA of each block before it is freed: exact saliency for the price of its reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpc_interp.attention.inputs import AttentionInputs

BLOCK_SIZE = 2**21
"""Target size of the largest tensor of a block, in numbers: 8 MB, which a processor's cache holds."""
MIN_ROWS = 64
"""Minimum number of queries in a block, even if it then exceeds `BLOCK_SIZE`."""


class ProductBlock(NamedTuple):
    """A * dL/dA of one layer, for some queries.

    Attributes:
        first: position of the first query.
        src: positions of the keys; the product is 0 at all others.
        values: the products, float32 or, in a float64 model, float64; they are overwritten when the next block is
            computed.
    """

    first: int
    src: slice
    values: Float[Tensor, "batch head dest src"]


@dataclass(frozen=True)
class PatternGradient:
    """Receives A * dL/dA of each fused layer in the backward pass.

    Attributes:
        read: called once a layer and backward pass, from the last layer to the first, with the index of the layer and
            its blocks in order.
        graph_root: a scalar that requires a gradient; it makes the graph begin at the first layer's attention.
        first_query: positions before it are in no block.
    """

    read: Callable[[int, Iterator[ProductBlock]], None]
    graph_root: Float[Tensor, ""]
    first_query: int = 0


def attend(inputs: AttentionInputs, gradient: PatternGradient | None) -> Float[Tensor, "batch head dest d_head"]:
    """Compute z = A v for each head, with a backward pass that computes A * dL/dA where a caller reads it.

    Args:
        inputs: of the layer.
        gradient: receives A * dL/dA; None: an ordinary backward pass.
    """
    if gradient is None or not torch.is_grad_enabled():
        return inputs.attend()
    return cast(Tensor, _Attention.apply(inputs.q, inputs.k, inputs.v, inputs, gradient, gradient.graph_root))


class _Attention(torch.autograd.Function):
    """Fused attention whose backward pass gives A * dL/dA.

    Tensors are saved as autograd saves any, so that under gradient checkpointing they are the recomputed ones.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, inputs: AttentionInputs, gradient: PatternGradient, root: Tensor
    ) -> Tensor:
        z = inputs.attend()
        ctx.save_for_backward(q, k, v, z)
        ctx.gradient = gradient
        ctx.settings = inputs.layer, inputs.scale, inputs.window, inputs.visible, inputs.removed
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, z = ctx.saved_tensors
        layer, *settings = ctx.settings
        backward = _Backward(AttentionInputs(layer, q, k, v, *settings), z, grads[0], any(ctx.needs_input_grad[:3]))
        blocks = backward.blocks(ctx.gradient.first_query)
        with torch.autocast(q.device.type, enabled=False):
            ctx.gradient.read(layer, blocks)
            for _ in blocks:  # the gradients need the blocks that were not read
                pass
        return *backward.grads(), None, None, torch.zeros_like(ctx.gradient.graph_root)


def rows_of_block(n_maps: int, n_src: int) -> int:
    """The queries of one block of the backward pass: about an eighth of them, fewer where a block would be too large.

    Args:
        n_maps: batch times heads.
        n_src: keys of each query.
    """
    return max(MIN_ROWS, min(n_src // 8, BLOCK_SIZE // (n_maps * n_src)))


class _Backward:
    """The backward pass of one layer's attention, a block of queries at a time, at least in float32.

    Heads that share a key are joined, as queries of one product: [batch * kv_head, group, pos, d_head].

    Args:
        inputs: of the layer.
        z: its output.
        grad: dL/dz.
        needs_grads: whether the gradients of q, k and v are computed.
    """

    def __init__(self, inputs: AttentionInputs, z: Tensor, grad: Tensor, needs_grads: bool):
        self._inputs = inputs
        self._q, self._grad = self._group_heads(inputs.q) * inputs.scale, self._group_heads(grad)
        self._k, self._v = self._group_heads(inputs.k)[:, 0], self._group_heads(inputs.v)[:, 0]
        # the mean of dL/dA of each query, weighted by A
        self._mean_grad = (self._grad * self._group_heads(z)).sum(-1, keepdim=True)
        tensors = (self._q, self._k, self._v) if needs_grads else ()
        self._grads = [torch.zeros_like(x) for x in tensors]

    def _group_heads(self, x: Tensor) -> Float[Tensor, "row group pos d_head"]:
        precise = x if x.dtype == torch.float64 else x.float()
        return precise.reshape(-1, x.shape[1] // self._inputs.k.shape[1], *x.shape[2:])

    def blocks(self, first_query: int) -> Iterator[ProductBlock]:
        """A * dL/dA; the gradients of a block are added when the next one is asked for.

        Args:
            first_query: positions before it are in no block.
        """
        inputs, n_dest = self._inputs, self._inputs.q.shape[2]
        batch, n_heads = inputs.q.shape[:2]
        n_rows = rows_of_block(batch * n_heads, inputs.k.shape[2])
        is_future = torch.ones(n_rows, n_rows, dtype=torch.bool, device=self._q.device).triu(1)
        first = min(n_dest, max(0, first_query - inputs.n_before))
        bounds = sorted({*range(0, first if self._grads else 0, n_rows), *range(first, n_dest, n_rows), n_dest})
        for start, stop in pairwise(bounds):
            rows, n = slice(start, stop), stop - start
            columns, attends = inputs.sources(start, stop)
            shape = batch, n_heads, n, columns.stop - columns.start
            pattern = (self._q[:, :, rows].flatten(1, 2) @ self._k[:, columns].mT).view(shape)
            if inputs.is_causal:  # only the block's own positions are hidden from some of its queries
                pattern[..., -n:].masked_fill_(is_future[:n, :n], -torch.inf)
            elif attends is not None:
                pattern.masked_fill_(~attends, -torch.inf)
            pattern = pattern.softmax(-1)
            if inputs.visible is not None:
                pattern.nan_to_num_(0.0)  # a query of padding has no key
            products = (self._grad[:, :, rows].flatten(1, 2) @ self._v[:, columns].mT).view(shape).mul_(pattern)
            if start >= first:
                yield ProductBlock(inputs.n_before + start, columns, products)
            if self._grads:
                self._add_grads(rows, columns, pattern, products)

    def _add_grads(self, rows: slice, columns: slice, pattern: Tensor, products: Tensor) -> None:
        """Add the gradients through one block; `products` becomes the gradient of its scores."""
        q_grad, k_grad, v_grad = self._grads
        joined = self._q.shape[0], -1, products.shape[-1]
        pattern, by_score = pattern.view(joined), products.view(joined)
        by_score.addcmul_(pattern, self._mean_grad[:, :, rows].flatten(1, 2), value=-1)
        q_grad[:, :, rows] = (by_score @ self._k[:, columns]).view_as(q_grad[:, :, rows])
        k_grad[:, columns].baddbmm_(by_score.mT, self._q[:, :, rows].flatten(1, 2))
        v_grad[:, columns].baddbmm_(pattern.mT, self._grad[:, :, rows].flatten(1, 2))

    def grads(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of q, k and v, after all blocks; None where they are not needed."""
        if not self._grads:
            return None, None, None
        inputs, (q_grad, k_grad, v_grad) = self._inputs, self._grads
        pairs = ((q_grad.mul_(inputs.scale), inputs.q), (k_grad, inputs.k), (v_grad, inputs.v))
        return tuple(grad.view(x.shape).to(x.dtype) for grad, x in pairs)  # type: ignore[return-value]
