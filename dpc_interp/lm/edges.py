"""Attention without some of its edges: what the removed sources held goes to those that are left.

    A'[i, j] = 0                               for a removed edge (destination i, source j)
    A'[i, j] = A[i, j] * m_i / m'_i            for the others of the row;  m_i: its mass, m'_i: what is left of it

A row of a pattern sums to one, so this is the softmax over the sources that are left, just as scores of minus infinity
would give. It acts at `hook_pattern`, where the saliency is measured: that hook must lie on the loss path anyway, while
`hook_attn_scores` is a copy behind the softmax in some `TransformerBridge` models. A row without a removed edge is left
as it is, bit for bit.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpc_interp.errors import DPCInterpError


def without_edges(
    pattern: Float[Tensor, "batch head dest src"], removed: Bool[Tensor, "batch dest src"]
) -> Float[Tensor, "batch head dest src"]:
    """The pattern without the edges marked in `removed`, in every head.

    Raises:
        DPCInterpError: a row has no source left that holds any attention.
    """
    wide = pattern if pattern.dtype == torch.float64 else pattern.float()
    kept = wide.masked_fill(removed[:, None], 0.0)
    mass, left = wide.sum(-1, keepdim=True), kept.sum(-1, keepdim=True)
    touched = removed.any(-1)[:, None, :, None]
    if (touched & (mass > 0) & (left <= 0)).any():
        raise DPCInterpError("a row has no source left to attend to; knock out fewer edges")
    rescaled = kept * (mass / left.clamp(min=torch.finfo(wide.dtype).tiny))
    return torch.where(touched, rescaled.to(pattern), pattern)
