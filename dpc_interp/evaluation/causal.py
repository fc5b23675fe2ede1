"""Does the saliency tell what matters? Knock edges out from prompt to late rationale and see the loss (METHOD 7.3).

Candidates are the edges from virtual tokens to the late half of the rationale. Ranked by I_l they are removed through
`corruption/knockout.py`, and the same text is read again (teacher forcing):

    loss_change = L(without the edges) - L,    L: the loss of the saliency: mean NLL of rationale, answer and stop token

- `knockouts`: the top, the bottom and, as placebo, random edges, a fraction of them, at each layer and in the deep
  layers at once, where edges of all deep layers are ranked together.
- `groups`: all late edges of one virtual token in the deep layers, for the rank correlation of flow and effect.
- `curves`: deletion (loss against the share of edges removed, the first of an order first) and insertion (loss against
  the share put back, all being removed at first) in the order of saliency, its reverse and random orders. To insert by
  saliency is to delete in reverse, read backwards.

The saliency is a first-order estimate without a sign; a removed edge also gives its attention to others. Virtual token
0, usually an attention sink, is no candidate unless `exclude_sink` is False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from dpc_interp.analysis.accumulation import check_layers, deep_layers
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.analysis.segments import segment
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.edge_batch import EdgeBatch
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length, check_prompt
from dpc_interp.tasks.problems import check_distinct

DEEP = -1
"""`layer` of a row about the deep layers at once."""
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of the edges between none and all at which the curves are taken."""


@dataclass(frozen=True)
class CausalEffects:
    """The frames of `causal_edges` and the options that made them. Changes are with the edges removed less without.

    `knockouts`: instance, correct, layer (-1: the deep layers at once), edges (`top`, `bottom`, `random`), draw,
    n_edges, flow (their mean I), loss_change (nats), answer_probability_change (of all the answer's tokens),
    answer_changed (1 where the most likely token differs at one of them); the last two NaN without an answer.
    `groups`: instance, correct, group (the virtual tokens, as text), n_edges, flow, loss_change.
    `curves`: instance, correct, kind (`deletion`, `insertion`), order (`saliency`, `reverse`, `random`), draw,
    fraction, loss_change.
    """

    knockouts: pd.DataFrame
    groups: pd.DataFrame
    curves: pd.DataFrame
    options: dict[str, object]


def causal_edges(
    model: HookedModel,
    runs: Sequence[Transcript],
    prompt: SoftPrompt,
    *,
    fraction: float = 0.1,
    fractions: Sequence[float] = FRACTIONS,
    deep: tuple[int, ...] | None = None,
    n_draws: int = 3,
    n_groups: int = 20,
    exclude_sink: bool = True,
    head_reduction: HeadReduction = "abs_of_sum",
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
) -> CausalEffects:
    """Knock out the edges that saliency ranks high and low; see the frames in `CausalEffects`.

    About (n_layers + 1) * (2 + n_draws) + n_groups + len(fractions) * (2 + n_draws) forward passes a run.

    Args:
        runs: transcripts made with `prompt`, each with a rationale of at least 2 tokens.
        fraction: share of a layer's candidates that are removed in `knockouts`, at least one edge.
        fractions: shares between 0 and 1 for `curves`; both ends are added.
        deep: the deep layers; None: the last third.
        n_draws: random sets for each comparison.
        n_groups: virtual tokens form at most so many groups, neighbours in flow together.
        exclude_sink: leave virtual token 0 out.
        seed: of the random edges, which are an instance's own and do not depend on the batch.

    Raises:
        DPCInterpError: no runs, a run without a rationale, options out of range, or a prompt that does not fit; before
            any forward pass.
    """
    if not runs:
        raise DPCInterpError("there are no runs to knock edges out of; generate some first")
    if not 0 < fraction <= 1 or not all(0 < f < 1 for f in fractions) or n_draws < 1 or n_groups < 2:
        raise DPCInterpError(
            "causal_edges needs fraction from 0 to 1, fractions within it, n_draws of at least 1, n_groups of 2"
        )
    check_distinct([run.problem for run in runs])
    check_prompt(model, prompt.vectors)
    if exclude_sink and prompt.n_virtual < 2:
        raise DPCInterpError("only the sink is left to knock out; use 2 virtual tokens or exclude_sink=False")
    layouts = [segment(run, tokenizer_of(model), prompt.n_virtual) for run in runs]
    if any(layout.rationale[1] - layout.rationale[0] < 2 for layout in layouts):
        raise DPCInterpError("a rationale has no late half; keep only dpc.with_rationale(runs, model)")
    check_length(model, max(layout.length for layout in layouts))
    deep = check_layers(deep or deep_layers(model.cfg.n_layers), model.cfg.n_layers)
    parts: list[tuple[pd.DataFrame, ...]] = []
    order = sorted(range(len(runs)), key=lambda i: (layouts[i].length, i))
    with tqdm(total=len(runs), desc="knock-out", unit="instance", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = EdgeBatch(
                model, [runs[i] for i in chosen], [layouts[i] for i in chosen], prompt, exclude_sink, head_reduction
            )
            parts.append(
                (
                    _knockouts(batch, deep, fraction, n_draws, seed),
                    _groups(batch, deep, n_groups),
                    _curves(batch, deep, sorted(fractions), n_draws, seed),
                )
            )
            bar.update(len(chosen))
    rank = {run.problem.id: i for i, run in enumerate(runs)}
    knockouts, groups, curves = (
        pd.concat(frames).sort_values("instance", key=lambda ids: ids.map(rank), kind="stable", ignore_index=True)
        for frames in zip(*parts, strict=True)
    )
    options: dict[str, object] = {"fraction": fraction, "deep": deep, "n_draws": n_draws, "n_groups": n_groups}
    options |= {"exclude_sink": exclude_sink, "head_reduction": head_reduction, "seed": seed, "prompt": prompt.name}
    return CausalEffects(knockouts, groups, curves, options)


def _knockouts(batch: EdgeBatch, deep: tuple[int, ...], fraction: float, n_draws: int, seed: int) -> pd.DataFrame:
    names = {"saliency": "top", "reverse": "bottom", "random": "random"}
    rows = []
    for layer in [*range(batch.flow.shape[1]), DEEP]:
        edges = [batch.edges(row, deep if layer == DEEP else (layer,)) for row in range(len(batch.runs))]
        orders = [batch.orders(row, flow, n_draws, seed) for row, (_, flow) in enumerate(edges)]
        for name, draw in orders[0]:
            taken = [order[name, draw][: max(1, round(fraction * len(order[name, draw])))] for order in orders]
            changes = batch.without([at[order] for (at, _), order in zip(edges, taken, strict=True)])
            for row, change in enumerate(changes):
                flow = edges[row][1][taken[row]].mean()
                about = {"layer": layer, "edges": names[name], "draw": draw, "n_edges": len(taken[row]), "flow": flow}
                rows.append(batch.named(row) | about | change)
    return pd.DataFrame(rows)


def _groups(batch: EdgeBatch, deep: tuple[int, ...], n_groups: int) -> pd.DataFrame:
    edges = [batch.edges(row, deep) for row in range(len(batch.runs))]
    members: list[list[NDArray[np.intp]]] = []
    for at, flow in edges:
        by_token = pd.Series(flow).groupby(at[:, 2].numpy()).sum().sort_values(ascending=False)
        members.append(np.array_split(by_token.index.to_numpy(), min(n_groups, len(by_token))))
    rows = []
    for group in range(len(members[0])):
        chosen = [np.isin(at[:, 2].numpy(), tokens[group]) for (at, _), tokens in zip(edges, members, strict=True)]
        changes = batch.without([at[torch.from_numpy(mask)] for (at, _), mask in zip(edges, chosen, strict=True)])
        for row, change in enumerate(changes):
            about = {
                "group": " ".join(map(str, sorted(members[row][group].tolist()))),
                "n_edges": int(chosen[row].sum()),
                "flow": edges[row][1][chosen[row]].mean(),
            }
            rows.append(batch.named(row) | about | {"loss_change": change["loss_change"]})
    return pd.DataFrame(rows)


def _curves(
    batch: EdgeBatch, deep: tuple[int, ...], fractions: Sequence[float], n_draws: int, seed: int
) -> pd.DataFrame:
    edges = [batch.edges(row, deep) for row in range(len(batch.runs))]
    orders = [batch.orders(row, flow, n_draws, seed) for row, (_, flow) in enumerate(edges)]
    none, every = [0.0] * len(edges), [c["loss_change"] for c in batch.without([at for at, _ in edges])]
    rows = []
    for name, draw in orders[0]:
        points = {0.0: none, 1.0: every}
        for share in fractions:
            taken = [order[name, draw][: round(share * len(order[name, draw]))] for order in orders]
            changes = batch.without([at[order] for (at, _), order in zip(edges, taken, strict=True)])
            points[share] = [change["loss_change"] for change in changes]
        backwards = {"saliency": "reverse", "reverse": "saliency", "random": "random"}[name]
        for (share, changes_at), row in product(sorted(points.items()), range(len(edges))):
            for kind, order, x in (("deletion", name, share), ("insertion", backwards, round(1 - share, 9))):
                about = {"kind": kind, "order": order, "draw": draw, "fraction": x, "loss_change": changes_at[row]}
                rows.append(batch.named(row) | about)
    return pd.DataFrame(rows)


def rank_correlation(groups: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of a group's flow with its effect: instance, correct, absolute, signed.

    `absolute` is against the size of the change in loss, which is what an unsigned saliency can tell; `signed` against
    the change itself, higher where removal hurts. NaN where nothing varies.
    """
    rows = []
    for (instance, correct), group in groups.groupby(["instance", "correct"], sort=False):
        effects = {"absolute": group["loss_change"].abs(), "signed": group["loss_change"]}
        values = {
            name: float(spearmanr(group["flow"], effect).statistic)
            if min(group["flow"].nunique(), effect.nunique()) > 1
            else float("nan")
            for name, effect in effects.items()
        }
        rows.append({"instance": instance, "correct": correct, **values})
    return pd.DataFrame(rows)


def curve_areas(curves: pd.DataFrame, *, absolute: bool = True) -> pd.DataFrame:
    """The area under each curve, random draws averaged: instance, correct, kind, order, area, advantage (nats).

    `advantage` is the area between the curve and the random one, positive where the order does better than chance: the
    loss moves sooner under deletion, or comes back sooner under insertion. With `absolute` it is the size of the change
    in loss that counts, which is what an unsigned saliency can tell.
    """
    keys = ["instance", "correct", "kind", "order"]
    if absolute:
        curves = curves.assign(loss_change=curves["loss_change"].abs())
    mean = curves.groupby([*keys, "fraction"], sort=False)["loss_change"].mean().reset_index().sort_values("fraction")
    rows = [
        (*key, float(trapezoid(curve["loss_change"], curve["fraction"])))
        for key, curve in mean.groupby(keys, sort=False)
    ]
    areas = pd.DataFrame(rows, columns=[*keys, "area"])
    chance = areas[areas["order"] == "random"].set_index(["instance", "kind"])["area"]
    base = chance.loc[pd.MultiIndex.from_frame(areas[["instance", "kind"]])].to_numpy()
    sign = np.where(areas["kind"] == "deletion", 1.0, -1.0)
    return areas.assign(advantage=sign * (areas["area"] - base))
