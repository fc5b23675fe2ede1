"""Attention knock-out: edges (destination i, source j) are removed at chosen layers (METHOD 5 and 7.3).

The edges are taken from the pattern in every head and the row is brought back to its mass: see `lm/edges.py` for the
formula and for why it acts at `hook_pattern`. Positions count from the first virtual token. The diagonal is never
removed: it is left out of the saliency too, and so every row keeps a source.

`knocked_out` removes any edges within one forward pass; a `KnockoutPlan` is one more corruption for `generate`, which
hides virtual tokens from what is written while it is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.accumulation import check_layers, peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.lm.edges import without_edges
from dpc_interp.lm.hooked import HookedModel


@contextmanager
def knocked_out(model: HookedModel, edges: Mapping[int, Bool[Tensor, "*batch dest src"]]) -> Iterator[None]:
    """Whatever the model reads within the context, it reads without these edges; afterwards nothing is left behind.

    Goes together with `prompted`: `with prompted(model, prompt) as run, knocked_out(model, edges): run(tokens)`.

    Args:
        edges: by layer, True at the edges to remove: [destination, source] for all rows of the batch or [batch,
            destination, source], as large as the sequence that is read. `edge_mask` makes one from pairs.

    Raises:
        DPCInterpError: a layer the model lacks, or an edge on or above the diagonal; before any forward pass.
        ShapeError: a mask that is not as large as the sequence (from the forward pass).
    """
    check_layers(tuple(edges), model.cfg.n_layers)
    for layer, mask in edges.items():
        if mask.ndim not in (2, 3) or mask.shape[-1] != mask.shape[-2]:
            raise ShapeError(
                f"the edges of layer {layer} are {list(mask.shape)}; give [destination, source], with or without batch"
            )
        if mask.triu().any():
            raise DPCInterpError(
                f"an edge of layer {layer} does not go to a later position; give destinations behind their sources"
            )

    def remove(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Float[Tensor, "batch head dest src"]:
        mask = edges[hook.layer()].to(pattern.device)
        if mask.shape[-2:] != pattern.shape[-2:] or (mask.ndim == 3 and len(mask) != len(pattern)):
            size = [len(pattern), *pattern.shape[-2:]]
            raise ShapeError(
                f"the edges of layer {hook.layer()} are {list(mask.shape)}, the pattern {size}; make one of its size"
            )
        return without_edges(pattern, mask.expand(len(pattern), -1, -1))

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", remove) for layer in edges]):
        yield


def edge_mask(pairs: Sequence[tuple[int, int]], n_positions: int) -> Bool[Tensor, "dest src"]:
    """The mask of edges given as pairs (destination, source).

    Raises:
        DPCInterpError: a position outside the sequence.
    """
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool)
    for destination, source in pairs:
        if not (0 <= destination < n_positions and 0 <= source < n_positions):
            raise DPCInterpError(f"there is no edge {(destination, source)} among {n_positions} positions")
        mask[destination, source] = True
    return mask


@dataclass(frozen=True)
class KnockoutPlan:
    """Hide virtual `tokens` from all that is written: no edge from them to a written token at `layers` (None: at all).

    The prompt's vectors stay, and so does what the question read from them. The first written token is chosen where
    the question ends: it is the same as without the plan.
    """

    tokens: tuple[int, ...] = ()
    layers: tuple[int, ...] | None = None

    def __call__(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_virtual d_model"]:
        """`vectors` as they are: what is hidden is hidden in the attention."""
        return vectors

    def hidden(self, n_layers: int, n_virtual: int) -> Bool[Tensor, "layer n_virtual"]:
        """True where a virtual token is hidden from what is written; refuses tokens and layers that are not there."""
        lacking = [token for token in self.tokens if not 0 <= token < n_virtual]
        if lacking:
            raise DPCInterpError(f"the plan names token {lacking[0]}; the prompt has {n_virtual} virtual tokens")
        hidden = torch.zeros(n_layers, n_virtual, dtype=torch.bool)
        layers = check_layers(tuple(range(n_layers)) if self.layers is None else self.layers, n_layers)
        for token in self.tokens:
            hidden[list(layers), token] = True
        return hidden


def plan_knockout(
    found: Analysis,
    *,
    knock_out_at: tuple[int, ...] | None = None,
    layers: tuple[int, ...] | None = None,
    exclude_sink: bool = True,
) -> list[KnockoutPlan]:
    """One plan an instance of `found`, in its order: hide the accumulation token j* from the rationale and answer.

    Args:
        knock_out_at: the layers at which it is hidden; None: all.
        layers, exclude_sink: where j* is looked for, see `peaks`.
    """
    at = None if knock_out_at is None else check_layers(knock_out_at, found.n_layers)
    tokens = peaks(found.accumulation, layers=layers, exclude_sink=exclude_sink)["peak_token"]
    return [KnockoutPlan((int(token),), at) for token in tokens[found.instances["instance"]]]
