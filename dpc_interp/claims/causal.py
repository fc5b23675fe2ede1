"""Does saliency show what matters? Knock out edges from the prompt to the late rationale and measure the loss.

See docs/method.md, section 7.3. Candidates are the edges from virtual tokens to the late half of the rationale. They
are ranked by I_l and removed with `knocked_out`, and the same text is read again (teacher forcing):

    loss_change = L(without the edges) - L,    L: the loss of the saliency: mean NLL of rationale, answer and stop token

- `knockouts`: the top, the bottom and, as placebo, random edges, a fraction of them, at each layer and at all deep
  layers at once, where the edges of all deep layers are ranked together.
- `groups`: all late edges of a group of virtual tokens in the deep layers, for the rank correlation of flow and effect.
- `redundancy`: all late edges of the virtual tokens of largest flow at a layer, one token at a time and all of them
  together. Where tokens carry the same information, each alone has little effect and all together have much.
- `curves`: deletion (loss against the share of edges removed) and insertion (loss against the share of edges put back
  after all were removed), in the order of saliency, its reverse and random orders. Insertion in the order of saliency
  is deletion in reverse order, read backwards.

The saliency is a first-order estimate without a sign, and removing an edge also gives its attention to other edges.
Attention sinks (`prompts/sinks.py`) are no candidates unless `exclude_sink` is False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.layers import check_layers, deep_layers
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.schema import conform, in_order_of
from dpc_interp.analysis.segments import Segments, segment
from dpc_interp.claims.edge_batch import EdgeBatch
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.execution.batch_splits import by_length
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.generation.transcript import Transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel, check_length, tokenizer_of
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.sinks import attention_sinks
from dpc_interp.prompts.soft_prompt import AnyPrompt, SoftPrompt, as_prompt, check_prompt
from dpc_interp.tasks.problem import check_distinct

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of the removed edges at which the curves are measured, besides 0 and 1."""
OPTIONS = ("deep", "exclude_sink", "head_reduction", "seed")
"""The fields of `Options` that `causal_edges` uses."""


@dataclass(frozen=True)
class CausalEffects:
    """The result of `causal_edges`. A change is the value with edges removed minus the value with all edges.

    Attributes:
        knockouts: the frame `knockouts` of `schema.py`.
        groups: one row per group of virtual tokens: instance, correct, group (the tokens, as text), n_edges, flow
            (mean I of the edges), loss_change (nats).
        curves: one row per point of a curve: instance, correct, kind (`deletion` or `insertion`), order (`saliency`,
            `reverse` or `random`), draw, fraction (of the edges removed or put back), loss_change (nats).
        options: that the frames were computed with.
        redundancy: one row per instance and layer: instance, correct, layer, tokens (those of largest flow, the largest
            first, as text), joint (loss_change without all of them), single (sum of the loss_changes without each one)
            and single_size (sum of their sizes), all in nats.
    """

    knockouts: pd.DataFrame
    groups: pd.DataFrame
    curves: pd.DataFrame
    options: dict[str, object]
    redundancy: pd.DataFrame


@torch_defaults()
def causal_edges(
    model: AnyModel,
    runs: Sequence[Transcript],
    prompt: AnyPrompt,
    *,
    fraction: float = 0.1,
    fractions: Sequence[float] = FRACTIONS,
    n_draws: int = 3,
    n_groups: int = 20,
    n_top: int = 4,
    batch_size: int = 16,
    progress: bool = True,
    options: Options | None = None,
    **fields: Any,
) -> CausalEffects:
    """Knock out the edges that saliency ranks high and low.

    It costs `n_causal_passes` passes a run.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        runs: transcripts generated with `prompt`, each with a rationale of at least 2 tokens.
        prompt: the soft prompt, or its name.
        fraction: share of a layer's candidates that are removed in `knockouts`, at least one edge.
        fractions: shares between 0 and 1 for `curves`; both ends are added.
        n_draws: random orders for each comparison.
        n_groups: the largest number of groups of virtual tokens; tokens of similar flow form a group.
        n_top: the most virtual tokens, those of largest flow, whose edges are removed in `redundancy`.
        batch_size: sequences in one pass.
        progress: show a progress bar.
        options: only `deep`, `exclude_sink`, `head_reduction` and `seed` (of the random edges, which depend on it and
            the instance, not on the batch) are used; None: the defaults of `Options`.
        fields: these fields of `Options` by their own names.

    Returns:
        The frames of the comparison, see `CausalEffects`.

    Raises:
        DPCInterpError: no runs, a run without a rationale, options out of range or unknown, or a prompt that does not
            fit; before any forward pass.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
        >>> effects = dpc.causal_edges(model, runs, prompt, fractions=(0.5,), n_draws=1, n_groups=2, progress=False)
        >>> sorted(effects.knockouts["edges"].unique())
        ['bottom', 'random', 'top']
    """
    prompt, model = as_prompt(prompt), as_model(model)
    unused = [name for name in fields if name not in OPTIONS]
    if unused:
        raise UnknownNameError("option", unused[0], OPTIONS)
    (options,) = read_keywords(fields, options or Options())
    if not 0 < fraction <= 1 or not all(0 < share < 1 for share in fractions) or min(n_draws, n_groups - 1, n_top) < 1:
        raise DPCInterpError(
            "causal_edges needs fraction from 0 to 1, fractions within it, n_draws and n_top from 1, n_groups from 2"
        )
    check_prompt(model, prompt.vectors)
    sinks = attention_sinks(model, prompt.vectors) if options.exclude_sink else ()
    segments = _check_runs(model, runs, prompt, sinks)
    deep = check_layers(options.deep or deep_layers(model.cfg.n_layers), model.cfg.n_layers)
    parts: list[tuple[pd.DataFrame, ...]] = []
    order = by_length([run_segments.length for run_segments in segments])
    with tqdm(total=len(runs), desc="knock-out", unit="instance", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = EdgeBatch(
                model,
                [runs[i] for i in chosen],
                [segments[i] for i in chosen],
                prompt,
                sinks,
                options.head_reduction,
            )
            parts.append(
                (
                    _knockouts(batch, deep, fraction, n_draws, options.seed),
                    _groups(batch, deep, n_groups),
                    _redundancy(batch, n_top),
                    _curves(batch, deep, sorted(fractions), n_draws, options.seed),
                )
            )
            bar.update(len(chosen))
    ids = [run.problem.id for run in runs]
    knockouts, groups, redundancy, curves = (in_order_of(pd.concat(frames), ids) for frames in zip(*parts, strict=True))
    used: dict[str, object] = {"fraction": fraction, "deep": deep, "n_draws": n_draws, "n_groups": n_groups}
    used |= {"n_top": n_top} | {name: getattr(options, name) for name in ("exclude_sink", "head_reduction", "seed")}
    return CausalEffects(conform(knockouts, "knockouts"), groups, curves, used | {"prompt": prompt.name}, redundancy)


def n_causal_passes(
    n_layers: int, *, n_draws: int = 3, n_groups: int = 20, n_top: int = 4, n_fractions: int = len(FRACTIONS)
) -> int:
    """The most passes that `causal_edges` makes for one run.

    Args:
        n_layers: of the model.
        n_draws, n_groups, n_top: see `causal_edges`.
        n_fractions: length of its `fractions`.
    """
    n_orders = 2 + n_draws
    # three more: all late edges removed, the loss with all edges, and the saliency
    return (n_layers + 1) * n_orders + n_layers * (n_top + 1) + n_groups + n_fractions * n_orders + 3


def _check_runs(
    model: HookedModel, runs: Sequence[Transcript], prompt: SoftPrompt, sinks: Sequence[int]
) -> list[Segments]:
    """Raise `DPCInterpError` unless edges can be removed in every run; return the segments of the runs."""
    if not runs:
        raise DPCInterpError("there are no runs to knock edges out of; generate some first")
    check_distinct([run.problem for run in runs])
    if len(sinks) == prompt.n_virtual:
        raise DPCInterpError("only sinks are left to knock out; use more virtual tokens or exclude_sink=False")
    segments = [segment(run, tokenizer_of(model), prompt.n_virtual) for run in runs]
    if any(run_segments.n_rationale_tokens < 2 for run_segments in segments):
        raise DPCInterpError("a rationale has no late half; keep only dpc.drop_empty_rationales(model, runs)")
    check_length(model, max(run_segments.length for run_segments in segments))
    return segments


def _knockouts(batch: EdgeBatch, deep: tuple[int, ...], fraction: float, n_draws: int, seed: int) -> pd.DataFrame:
    """Remove the same fraction of the edges from the top, the bottom and at random, by layer."""
    names = {"saliency": "top", "reverse": "bottom", "random": "random"}
    rows = []
    for layer in [*range(batch.flow.shape[1]), None]:  # None: all deep layers at once
        edges = [batch.edges(row, deep if layer is None else (layer,)) for row in range(len(batch.runs))]
        # without the layer, the same positions would be removed at every layer
        orders = [batch.orders(row, flow, n_draws, f"{seed}/{layer}") for row, (_, flow) in enumerate(edges)]
        for name, draw in orders[0]:
            removed = [order[name, draw][: max(1, round(fraction * len(order[name, draw])))] for order in orders]
            changes = batch.changes_without([index[some] for (index, _), some in zip(edges, removed, strict=True)])
            for row, change in enumerate(changes):
                columns = {
                    "layer": layer,
                    "edges": names[name],
                    "draw": draw,
                    "n_edges": len(removed[row]),
                    "flow": edges[row][1][removed[row]].mean(),
                }
                rows.append(batch.instance_columns(row) | columns | change)
    return pd.DataFrame(rows)


def _groups(batch: EdgeBatch, deep: tuple[int, ...], n_groups: int) -> pd.DataFrame:
    """Remove all edges of one group of virtual tokens at a time."""
    edges = [batch.edges(row, deep) for row in range(len(batch.runs))]
    by_flow = [_tokens_by_flow(*of_row) for of_row in edges]
    members = [np.array_split(tokens, min(n_groups, len(tokens))) for tokens in by_flow]
    rows = []
    for group in range(len(members[0])):
        in_group = [
            np.isin(index[:, 2].numpy(), tokens[group]) for (index, _), tokens in zip(edges, members, strict=True)
        ]
        removed = [index[torch.from_numpy(mask)] for (index, _), mask in zip(edges, in_group, strict=True)]
        for row, change in enumerate(batch.changes_without(removed)):
            columns = {
                "group": " ".join(map(str, sorted(members[row][group].tolist()))),
                "n_edges": int(in_group[row].sum()),
                "flow": edges[row][1][in_group[row]].mean(),
                "loss_change": change["loss_change"],
            }
            rows.append(batch.instance_columns(row) | columns)
    return pd.DataFrame(rows)


def _redundancy(batch: EdgeBatch, n_top: int) -> pd.DataFrame:
    """Remove all edges of each of the top virtual tokens of a layer, one token at a time and all of them together."""
    rows = []
    for layer in range(batch.flow.shape[1]):
        edges = [batch.edges(row, (layer,)) for row in range(len(batch.runs))]
        top = [_tokens_by_flow(*of_row)[:n_top] for of_row in edges]
        sources = [index[:, 2].numpy() for index, _ in edges]
        joint, *singles = (
            batch.changes_without(
                [
                    index[torch.from_numpy(np.isin(source, some[removed]))]
                    for (index, _), source, some in zip(edges, sources, top, strict=True)
                ]
            )
            for removed in (slice(None), *(slice(k, k + 1) for k in range(len(top[0]))))
        )
        for row, tokens in enumerate(top):
            changes = np.array([single[row]["loss_change"] for single in singles])
            columns = {
                "layer": layer,
                "tokens": " ".join(map(str, tokens)),
                "joint": joint[row]["loss_change"],
                "single": changes.sum(),
                "single_size": np.abs(changes).sum(),
            }
            rows.append(batch.instance_columns(row) | columns)
    return pd.DataFrame(rows)


def _tokens_by_flow(index: Int[Tensor, "edge 3"], flow: NDArray[np.float64]) -> NDArray[np.intp]:
    """The virtual tokens of some edges, those of the largest summed flow first."""
    return pd.Series(flow).groupby(index[:, 2].numpy()).sum().sort_values(ascending=False).index.to_numpy()


def _curves(
    batch: EdgeBatch, deep: tuple[int, ...], fractions: Sequence[float], n_draws: int, seed: int
) -> pd.DataFrame:
    """Measure the deletion curves; the insertion curves are the same points in reverse order."""
    edges = [batch.edges(row, deep) for row in range(len(batch.runs))]
    orders = [batch.orders(row, flow, n_draws, seed) for row, (_, flow) in enumerate(edges)]
    all_removed = [change["loss_change"] for change in batch.changes_without([index for index, _ in edges])]
    mirrored = {"saliency": "reverse", "reverse": "saliency", "random": "random"}
    rows = []
    for name, draw in orders[0]:
        points = {0.0: [0.0] * len(edges), 1.0: all_removed}
        for share in fractions:
            removed = [order[name, draw][: round(share * len(order[name, draw]))] for order in orders]
            changes = batch.changes_without([index[some] for (index, _), some in zip(edges, removed, strict=True)])
            points[share] = [change["loss_change"] for change in changes]
        for (share, loss_changes), row in product(sorted(points.items()), range(len(edges))):
            # what is left after deleting the first edges of an order was put back first in the mirrored order
            for kind, order, x in (("deletion", name, share), ("insertion", mirrored[name], round(1 - share, 9))):
                columns = {"kind": kind, "order": order, "draw": draw, "fraction": x, "loss_change": loss_changes[row]}
                rows.append(batch.instance_columns(row) | columns)
    return pd.DataFrame(rows)
