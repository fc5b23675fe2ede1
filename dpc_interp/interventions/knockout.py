"""Attention knock-out: remove edges (destination i, source j) at chosen layers (docs/method.md, sections 5 and 7.3).

The edges are removed from the attention pattern of every head, and the rest of the row is rescaled to the row's former
mass; `attention/edges.py` has the formula and explains how. Positions count from the
first virtual token. The diagonal is never removed: the saliency leaves it out too, and so every row keeps a source.

`knocked_out` removes any edges within one forward pass. A `KnockoutPlan` is a corruption for `generate`: generated
tokens cannot attend to the chosen virtual tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.layers import check_layers
from dpc_interp.analysis.options import Options
from dpc_interp.attention.edges import EdgeRemoval
from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.interventions.plan import check_tokens
from dpc_interp.models.hooked import HookedModel


@contextmanager
def knocked_out(model: HookedModel, edges: Mapping[int, Bool[Tensor, "*batch dest src"]]) -> Iterator[None]:
    """Remove attention edges in every forward pass within the context.

    It combines with `prompted`: `with prompted(model, prompt) as run, knocked_out(model, edges): run(tokens)`. All
    hooks are removed afterwards, also when the body raises.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        edges: layer -> mask that is True at the edges to remove, [destination, source] for all rows of the batch or
            [batch, destination, source]; its size is that of the sequence, virtual tokens included. `edge_mask` makes
            one from pairs.

    Raises:
        DPCInterpError: a layer that the model does not have, or an edge on or above the diagonal; before any forward
            pass.
        ShapeError: a mask that is not square (at once) or not of the size of the sequence (from the forward pass).

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> model = dpc.load_model("reasoner")
        >>> with dpc.knocked_out(model, {0: dpc.edge_mask([(2, 1)], n_positions=3)}):
        ...     _, cache = model.run_with_cache(torch.tensor([[1, 5, 6]]))
        >>> cache["pattern", 0][0, :, 2, 1].sum().item()
        0.0
    """
    _check_edges(model, edges)

    def find_edges(layer: int, shape: torch.Size) -> Bool[Tensor, "batch dest src"] | None:
        mask, size = edges[layer], [shape[0], *shape[-2:]]
        if list(mask.shape[-2:]) != size[1:] or (mask.ndim == 3 and len(mask) != size[0]):
            raise ShapeError(
                f"the edges of layer {layer} are {list(mask.shape)}, the pattern is {size}; make a mask of its size"
            )
        return mask.expand(size) if mask.any() else None

    removal = EdgeRemoval(find_edges)
    with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", removal) for layer in edges]):
        yield


def _check_edges(model: HookedModel, edges: Mapping[int, Bool[Tensor, "*batch dest src"]]) -> None:
    check_layers(tuple(edges), model.cfg.n_layers)
    for layer, mask in edges.items():
        if mask.ndim not in (2, 3) or mask.shape[-1] != mask.shape[-2]:
            raise ShapeError(
                f"the edges of layer {layer} are {list(mask.shape)}; give [destination, source], with or without batch"
            )
        if mask.triu().any():
            raise DPCInterpError(
                f"an edge of layer {layer} does not go to a later position; give destinations after their sources"
            )


def edge_mask(pairs: Sequence[tuple[int, int]], n_positions: int) -> Bool[Tensor, "dest src"]:
    """Make the mask of edges that are given as pairs.

    Args:
        pairs: (destination, source) of each edge, positions counted from the first virtual token.
        n_positions: length of the sequence, virtual tokens included.

    Returns:
        True at the edges, [n_positions, n_positions].

    Raises:
        DPCInterpError: a position outside the sequence.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.edge_mask([(1, 0)], n_positions=2)
        tensor([[False, False],
                [ True, False]])
    """
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool, device="cpu")
    for destination, source in pairs:
        if not (0 <= destination < n_positions and 0 <= source < n_positions):
            raise DPCInterpError(f"there is no edge {(destination, source)} among {n_positions} positions")
        mask[destination, source] = True
    return mask


@dataclass(frozen=True)
class KnockoutPlan:
    """A corruption by attention knock-out: generated tokens cannot attend to some virtual tokens.

    The vectors of the prompt stay unchanged, and so does what the question reads from them. The first generated token
    is the same as without the plan, because it is chosen at the end of the question.

    Attributes:
        tokens: the virtual tokens that are hidden.
        layers: the layers at which they are hidden; None: all.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.KnockoutPlan(tokens=(1,), layers=(0,)).hidden_tokens(n_layers=2, n_virtual=3)
        tensor([[False,  True, False],
                [False, False, False]])
    """

    tokens: tuple[int, ...] = ()
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))  # a list could not be hashed
        object.__setattr__(self, "layers", None if self.layers is None else tuple(self.layers))

    def __call__(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_virtual d_model"]:
        """Return `vectors` unchanged: the plan acts on the attention only."""
        return vectors

    def hidden_tokens(self, n_layers: int, n_virtual: int) -> Bool[Tensor, "layer n_virtual"]:
        """True where a virtual token is hidden from the generated tokens.

        Args:
            n_layers: layers of the model.
            n_virtual: virtual tokens of the prompt.

        Raises:
            DPCInterpError: the plan names a token or a layer that does not exist.
        """
        check_tokens(self.tokens, n_virtual)
        hidden = torch.zeros(n_layers, n_virtual, dtype=torch.bool, device="cpu")
        layers = check_layers(tuple(range(n_layers)) if self.layers is None else self.layers, n_layers)
        for token in self.tokens:
            hidden[list(layers), token] = True
        return hidden


def plan_knockout(
    analysis: Analysis,
    *,
    knock_out_at: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    exclude_sink: bool = Options.exclude_sink,
) -> list[KnockoutPlan]:
    """Plan the knock-out of each instance: hide its accumulation token from the rationale and the answer.

    Args:
        analysis: result of `analyse`.
        knock_out_at: the layers at which the token is hidden; None: all.
        layers: the shallow layers, over which the accumulation token is found; None: the first third.
        exclude_sink: see `accumulation_peaks`.

    Returns:
        One plan per instance, in the order of `analysis.instances`.

    Raises:
        DPCInterpError: a layer that the model does not have, or no virtual token besides the sink.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
        >>> plans = dpc.plan_knockout(dpc.analyse(model, runs, prompt, progress=False), knock_out_at=[4, 5])
        >>> plans[0].layers
        (4, 5)
    """
    hidden_at = None if knock_out_at is None else check_layers(knock_out_at, analysis.n_layers)
    tokens = accumulation_peaks(analysis.accumulation, layers=layers, exclude_sink=exclude_sink)["peak_token"]
    return [KnockoutPlan((int(token),), hidden_at) for token in tokens[analysis.instances["instance"]]]
