"""Remove edges from attention: the remaining sources of each row share the attention of the removed ones.

    A'[i, j] = 0                               for a removed edge (destination i, source j)
    A'[i, j] = A[i, j] * m_i / m'_i            for the other sources of row i
    m_i = sum over all j of A[i, j],  m'_i = sum over the remaining j of A[i, j]

A row of a pattern sums to one, so the result is the softmax over the remaining sources, as if the removed scores had
been minus infinity. `EdgeRemoval` is a hook at `hook_pattern`, where the saliency is measured: that hook must lie on
the loss path anyway, while `hook_attn_scores` is a copy made after the softmax in some `TransformerBridge` models. A
row without a removed edge stays the same bit for bit. Fused attention computes no pattern and masks the edges that the
hooks of its layer remove (`edges_removed_at`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


class EdgeRemoval:
    """A hook at `hook_pattern` that removes edges. It does not make a layer compute its pattern.

    Args:
        find_edges: (layer, shape) -> True at the edges to remove; None: no edges. The shape is that of the pattern,
            (batch, head, dest, src).
    """

    def __init__(self, find_edges: Callable[[int, torch.Size], Bool[Tensor, "batch dest src"] | None]):
        self.find_edges = find_edges

    def __call__(
        self, pattern: Float[Tensor, "batch head dest src"], hook: Any
    ) -> Float[Tensor, "batch head dest src"]:
        """Remove the edges from a pattern.

        Args:
            pattern: attention pattern of a layer.
            hook: the hook point, which knows its layer.
        """
        if pattern.numel() == 1:  # one position, which keeps itself; or the placeholder of a fused layer
            return pattern
        edges = self.find_edges(hook.layer(), pattern.shape)
        return pattern if edges is None else without_edges(pattern, edges.to(pattern.device))


def only_removes_edges(point: Any) -> bool:
    """Whether all hooks on a hook point, if there are any, are of `EdgeRemoval`.

    Args:
        point: the `hook_pattern` of a layer.
    """
    return not point._backward_hooks and len(_removals(point)) == len(point._forward_hooks)


def edges_removed_at(
    point: Any, layer: int, shape: torch.Size, device: torch.device
) -> Bool[Tensor, "batch dest src"] | None:
    """The edges that the hooks on a hook point remove.

    Args:
        point: the `hook_pattern` of a layer.
        layer: index of the layer.
        shape: that its pattern would have, (batch, head, dest, src).
        device: of the result.

    Returns:
        True at the removed edges; None: no edges.
    """
    edges = None
    for removal in _removals(point):
        new = removal.find_edges(layer, shape)
        if new is not None:
            edges = new.to(device) if edges is None else edges | new.to(device)
    return edges


def _removals(point: Any) -> list[EdgeRemoval]:
    hooks = (handle.user_hook for handle in point.fwd_hooks)
    return [hook for hook in hooks if isinstance(hook, EdgeRemoval)]
