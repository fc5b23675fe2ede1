"""Remove edges from an attention pattern: the remaining sources of each row share the attention of the removed ones.

    A'[i, j] = 0                               for a removed edge (destination i, source j)
    A'[i, j] = A[i, j] * m_i / m'_i            for the other sources of row i
    m_i = sum over all j of A[i, j],  m'_i = sum over the remaining j of A[i, j]

A row of a pattern sums to one, so the result is the softmax over the remaining sources, as if the removed scores had
been minus infinity. The edges are removed at `hook_pattern`, where the saliency is measured: that hook must lie on the
loss path anyway, while `hook_attn_scores` is a copy made after the softmax in some `TransformerBridge` models. A row
without a removed edge stays the same bit for bit.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpc_interp.errors import DPCInterpError


def without_edges(
    pattern: Float[Tensor, "batch head dest src"], removed: Bool[Tensor, "batch dest src"]
) -> Float[Tensor, "batch head dest src"]:
    """Remove edges from a pattern, in every head.

    Args:
        pattern: attention pattern.
        removed: True at the edges to remove.

    Returns:
        The new pattern, in the dtype of `pattern`.

    Raises:
        DPCInterpError: the remaining sources of a row have no attention.
    """
    # sums in half precision would round away part of a row's mass
    precise = pattern if pattern.dtype == torch.float64 else pattern.float()
    remaining = precise.masked_fill(removed[:, None], 0.0)
    mass, remaining_mass = precise.sum(-1, keepdim=True), remaining.sum(-1, keepdim=True)
    has_removed = removed.any(-1)[:, None, :, None]
    # TransformerLens gives a left-padded query a row of zeros: no attention to share, and not an error
    if (has_removed & (mass > 0) & (remaining_mass <= 0)).any():
        raise DPCInterpError("a row has no source left to attend to; knock out fewer edges")
    rescaled = remaining * (mass / remaining_mass.clamp(min=torch.finfo(precise.dtype).tiny))
    return torch.where(has_removed, rescaled.to(pattern), pattern)
