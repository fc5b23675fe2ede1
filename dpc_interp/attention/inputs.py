"""What an attention layer computes its output from, and the output by fused attention.

PyTorch's `scaled_dot_product_attention` never holds a pattern. Where it needs a mask (a window, padding, a cached
prefix, removed edges), it is called for some queries at a time, so that a mask has at most `MAX_MASKED_QUERIES` rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

MAX_MASKED_QUERIES = 512
"""Queries of one call where a mask is needed."""


@dataclass(frozen=True)
class AttentionInputs:
    """What the pattern of a layer is computed from.

    Attributes:
        layer: index of the layer.
        q: queries, after the rotary embedding.
        k: keys, after the rotary embedding.
        v: values.
        scale: factor of the scores.
        window: number of positions that a query attends to, its own included; None: all before it.
        visible: False at keys that are padding; None: no padding.
        removed: True at edges that are removed; None: no edges.
    """

    layer: int
    q: Float[Tensor, "batch head dest d_head"]
    k: Float[Tensor, "batch kv_head src d_head"]
    v: Float[Tensor, "batch kv_head src d_head"]
    scale: float
    window: int | None
    visible: Bool[Tensor, "batch src"] | None
    removed: Bool[Tensor, "batch dest src"] | None = None

    @property
    def n_before(self) -> int:
        """Keys before the first query, which were cached."""
        return self.k.shape[2] - self.q.shape[2]

    @property
    def is_causal(self) -> bool:
        """Whether each query attends to every position up to its own."""
        no_mask = self.visible is None and self.removed is None
        return no_mask and (self.window is None or self.window >= self.k.shape[2])

    def sources(self, start: int, stop: int) -> tuple[slice, Bool[Tensor, "batch 1 dest src"] | None]:
        """The keys that some queries attend to.

        Args:
            start: first query.
            stop: end of the queries.

        Returns:
            The range of the keys, and True where a query attends to a key in it; None: everywhere.
        """
        first, last = self.n_before + start, self.n_before + stop
        columns = slice(max(0, first - self.window + 1) if self.window else 0, last)
        mask = None
        if stop - start > 1:
            dest = torch.arange(first, last, device=self.q.device)[:, None]
            src = torch.arange(columns.start, last, device=self.q.device)
            mask = src <= dest
            if self.window:
                mask &= src > dest - self.window
            mask = mask[None, None]
        if self.visible is not None:
            visible = self.visible[:, None, None, columns]
            mask = visible if mask is None else mask & visible
        if self.removed is not None:
            remaining = ~self.removed[:, None, start:stop, columns]
            mask = remaining if mask is None else mask & remaining
        return columns, mask

    def attend(self) -> Float[Tensor, "batch head dest d_head"]:
        """Compute z = A v for each head, without A."""
        n_dest, n_src = self.q.shape[2], self.k.shape[2]
        grouped = self.k.shape[1] != self.q.shape[1]
        if n_dest == 1:  # heads that share a key become queries of one head: keys are not repeated
            columns, mask = self.sources(0, 1)
            q = self.q.reshape(len(self.q), self.k.shape[1], -1, self.q.shape[-1])  # [batch, kv_head, group, d_head]
            k, v = self.k[:, :, columns], self.v[:, :, columns]
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).reshape(self.q.shape)
        if n_dest == n_src and self.is_causal:
            return scaled_dot_product_attention(
                self.q, self.k, self.v, is_causal=True, scale=self.scale, enable_gqa=grouped
            )
        parts = []
        for start in range(0, n_dest, MAX_MASKED_QUERIES):
            stop = min(start + MAX_MASKED_QUERIES, n_dest)
            columns, mask = self.sources(start, stop)
            k, v = self.k[:, :, columns], self.v[:, :, columns]
            q = self.q[:, :, start:stop]
            parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, enable_gqa=grouped))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
