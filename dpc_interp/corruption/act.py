"""ACT, attention calibration (Yu et al. 2024, training-free), a baseline of the paper (METHOD 6 and its end).

In chosen heads, with N the positions read (prompt and question), sources j other than the first are sinks where

    a_j = mean over rows i >= j of A[i, j]  >  alpha / N        (or > `threshold`, as in the authors' released code)

and in every row, S the sinks,

    A'[i, s] = beta * A[i, s]                                               s in S
    A'[i, t] = A[i, t] + (1 - beta) * sum_S A[i, s] * A[i, t] / sum_{t' not in S} A[i, t']      t not in S

The mean is over the rows that can read j, as in the released code. The sinks are found when the prompt and the question
are read and are kept while the answer is written: what is written gives no new sinks, and text decoded with a cache is
that of full forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.accumulation import check_layers
from dpc_interp.analysis.analyse import gold_transcript
from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.decoding import now_read
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.likelihood import likelihood
from dpc_interp.lm.soft_prompt import SoftPrompt

Heads = Sequence[tuple[int, int]]
"""(layer, head) of each calibrated head."""
ALPHA, BETA = 5.0, 0.4


@contextmanager
def act(
    model: HookedModel,
    heads: Heads,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    threshold: float | None = None,
    n_read: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Calibrate the attention of `heads` in whatever the model reads within the context: `generate`, `run`, ...

    Args:
        heads: (layer, head) pairs, see `choose_heads`; query heads.
        alpha: a sink receives more than alpha / N on average; `threshold` in its place is that bound itself.
        beta: what is left of a sink's attention.
        n_read: for each row of a full forward pass the positions on which sinks are found, virtual tokens and question;
            None: all. `generate` knows it by itself.

    Raises:
        DPCInterpError: a head that the model lacks, or options out of range; before any forward pass.
    """
    check_layers(tuple(layer for layer, _ in heads), model.cfg.n_layers)
    lacking = [head for _, head in heads if not 0 <= head < model.cfg.n_heads]
    if lacking:
        raise DPCInterpError(f"there is no head {lacking[0]}; this model has heads 0 to {model.cfg.n_heads - 1}")
    if not 0 <= beta <= 1 or alpha <= 0 or (threshold is not None and threshold <= 0):
        raise DPCInterpError("ACT needs beta from 0 to 1, and alpha and threshold above 0")
    by_layer: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        by_layer.setdefault(layer, []).append(head)
    kept: dict[int, Tensor] = {}

    def calibrate(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Tensor:
        layer = hook.layer()
        chosen = pattern[:, by_layer[layer]]
        wide = chosen if chosen.dtype == torch.float64 else chosen.float()
        batch = now_read()
        if pattern.shape[2] == pattern.shape[3]:  # nothing is cached: the question is read
            starts = torch.zeros(len(pattern), dtype=torch.long) if batch is None else batch.starts
            whole = torch.full_like(starts, pattern.shape[2])
            stops = whole if batch is not None or n_read is None else n_read
            kept[layer] = find_sinks(wide, starts, stops, alpha, threshold)
        rows = slice(None) if batch is None else batch.rows.to(pattern.device)
        found = kept[layer][rows]
        sinks = found.new_zeros(*found.shape[:2], pattern.shape[3])
        sinks[..., : found.shape[2]] = found
        calibrated = pattern.clone()
        calibrated[:, by_layer[layer]] = calibrate_pattern(wide, sinks, beta).to(pattern)
        return calibrated

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", calibrate) for layer in by_layer]):
        yield


@dataclass(frozen=True)
class Act:
    """ACT with its options, as a method of `evaluate(contexts=...)`."""

    heads: tuple[tuple[int, int], ...]
    alpha: float = ALPHA
    beta: float = BETA

    def __call__(self, model: HookedModel) -> AbstractContextManager[None]:
        """The context in which `model` answers."""
        return act(model, self.heads, alpha=self.alpha, beta=self.beta)


def find_sinks(
    pattern: Float[Tensor, "batch head pos pos"],
    starts: Int[Tensor, " batch"],
    stops: Int[Tensor, " batch"],
    alpha: float = ALPHA,
    threshold: float | None = None,
) -> Bool[Tensor, "batch head pos"]:
    """The sinks of each head among the positions from `starts` to before `stops`, the first never one of them."""
    position = torch.arange(pattern.shape[2], device=pattern.device)
    starts, stops = starts.to(pattern.device)[:, None], stops.to(pattern.device)[:, None]
    counted = (position >= starts) & (position < stops)
    received = torch.einsum("bhij,bi->bhj", pattern, counted.to(pattern))
    readers = (stops - position).clamp(min=1)
    bound = alpha / (stops - starts) if threshold is None else threshold
    return (received / readers[:, None] > torch.as_tensor(bound).to(pattern).view(-1, 1, 1)) & (
        counted & (position > starts)
    )[:, None]


def calibrate_pattern(
    pattern: Float[Tensor, "batch head dest src"], sinks: Bool[Tensor, "batch head src"], beta: float = BETA
) -> Float[Tensor, "batch head dest src"]:
    """The pattern with the attention on `sinks` reduced; a row that attends to nothing else is left as it is."""
    at_sinks = sinks[:, :, None]
    others = pattern.masked_fill(at_sinks, 0.0)
    left = others.sum(-1, keepdim=True)
    freed = (1 - beta) * (pattern - others).sum(-1, keepdim=True)
    moved = torch.where(at_sinks, beta * pattern, others + freed * others / left.clamp(min=1e-30))
    return torch.where((left > 0) & (freed > 0), moved, pattern)


def head_gains(
    model: HookedModel,
    runs: Sequence[Transcript],
    prompt: SoftPrompt | None = None,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    threshold: float | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> pd.DataFrame:
    """What calibrating each head alone does on validation samples: layer, head, gain (one row a head).

    `gain` is the decrease, in nats, of the mean NLL of the problems' written rationales and answers, averaged over
    runs; Yu et al. take the gain in accuracy on multiple-choice tasks, which costs a generation for each head. Only the
    problems and questions of `runs` are used.

    Raises:
        DPCInterpError: there are no runs, or what `act` refuses.
    """
    if not runs:
        raise DPCInterpError("there are no runs to choose heads on; generate some on validation problems first")
    gold = [gold_transcript(model, run) for run in runs]
    gold.sort(key=lambda run: len(run.question_tokens) + len(run.generated_tokens))
    n_virtual = 0 if prompt is None else prompt.n_virtual

    def loss(heads: Heads) -> float:
        total = 0.0
        for start in range(0, len(gold), batch_size):
            part = gold[start : start + batch_size]
            n_read = torch.tensor([n_virtual + len(run.question_tokens) for run in part])
            with act(model, heads, alpha=alpha, beta=beta, threshold=threshold, n_read=n_read):
                total += float(likelihood(model, part, prompt).loss.sum())
        return total / len(gold)

    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    plain = loss([])
    bar = tqdm(every, desc="ACT heads", unit="head", disable=not progress, leave=False)
    return pd.DataFrame([(*one, plain - loss([one])) for one in bar], columns=["layer", "head", "gain"])


def choose_heads(gains: pd.DataFrame, *, n_heads: int | None = None) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs that gain from calibration, most first; at most `n_heads`."""
    best = gains[gains["gain"] > 0].sort_values(["gain", "layer", "head"], ascending=[False, True, True])
    pairs = best[["layer", "head"]].head(len(best) if n_heads is None else n_heads)
    return tuple((int(layer), int(head)) for layer, head in pairs.itertuples(index=False))
