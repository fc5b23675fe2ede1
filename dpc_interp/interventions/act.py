"""ACT, attention calibration (Yu et al. 2024, training-free), a baseline of the paper (docs/method.md, section 6).

With N the number of positions of prompt and question, the sinks of a chosen head are the sources j, other than the
first, that receive

    a_j = mean over rows i >= j of A[i, j]  >  alpha / N        (or > `threshold`, as in the authors' released code)

and in every row, with S the set of sinks,

    A'[i, s] = beta * A[i, s]                                                                   s in S
    A'[i, t] = A[i, t] + (1 - beta) * sum_S A[i, s] * A[i, t] / sum_{t' not in S} A[i, t']      t not in S

The mean is over the rows that can attend to j, as in the released code. Sinks are found when prompt and question are
read and stay fixed during generation: generated tokens never become sinks, so that cached decoding gives the same text
as full forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.layers import check_layers
from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.backoff import batches_with_backoff
from dpc_interp.generation.decoding_batch import current_batch
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.generation.transcript import Transcript, gold_transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel, check_keeps_keys
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt

Heads = Sequence[tuple[int, int]]
"""(layer, head) of each calibrated head; heads are query heads."""
ALPHA, BETA = 5.0, 0.4
"""The values of the ACT paper."""


@contextmanager
def attention_calibration(
    model: HookedModel,
    heads: Heads,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    threshold: float | None = None,
    n_read: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Calibrate the attention of `heads` in every forward pass within the context, those of `generate` included.

    All hooks are removed afterwards, also when the body raises.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        heads: (layer, head) pairs of query heads, see `choose_heads`.
        alpha: a sink receives more than alpha / N on average.
        beta: the share of its attention that a sink keeps, 0 to 1.
        threshold: replaces the bound alpha / N; None: alpha / N.
        n_read: for each row of a full forward pass, the number of positions in which sinks are looked for, virtual
            tokens and question; None: all. `generate` sets it itself.

    Raises:
        DPCInterpError: a layer or head that the model does not have, or options out of range; before any forward pass.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> model, tokens = dpc.load_model("reasoner"), torch.tensor([[1, 5, 6, 7]])
        >>> with dpc.attention_calibration(model, heads=[(0, 0)], threshold=0.01):
        ...     calibrated = model(tokens)
        >>> torch.equal(calibrated, model(tokens))
        False
    """
    _check_calibration(model, heads, alpha, beta, threshold)
    heads_by_layer: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        heads_by_layer.setdefault(layer, []).append(head)
    question_sinks: dict[int, Tensor] = {}

    def calibrate(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Tensor:
        layer = hook.layer()
        selected = pattern[:, heads_by_layer[layer]]
        selected = selected if selected.dtype == torch.float64 else selected.float()
        batch = current_batch()
        if pattern.shape[2] == pattern.shape[3]:  # nothing is cached: this pass reads the question
            starts = torch.zeros(len(pattern), dtype=torch.long, device="cpu") if batch is None else batch.starts
            width = torch.full_like(starts, pattern.shape[2])
            stops = width if batch is not None or n_read is None else n_read
            question_sinks[layer] = find_sinks(selected, starts, stops, alpha, threshold)
        else:
            check_keeps_keys(model, pattern.shape[3])
        # rows that have finished leave the decoding batch, so the rows of this pass may be fewer than in the first
        rows = slice(None) if batch is None else batch.rows.to(pattern.device)
        known = question_sinks[layer][rows]
        sinks = known.new_zeros(*known.shape[:2], pattern.shape[3])  # generated tokens are no sinks
        sinks[..., : known.shape[2]] = known
        calibrated = pattern.clone()
        calibrated[:, heads_by_layer[layer]] = calibrate_pattern(selected, sinks, beta).to(pattern)
        return calibrated

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", calibrate) for layer in heads_by_layer]):
        yield


def _check_calibration(model: HookedModel, heads: Heads, alpha: float, beta: float, threshold: float | None) -> None:
    check_layers(tuple(layer for layer, _ in heads), model.cfg.n_layers)
    unknown = [head for _, head in heads if not 0 <= head < model.cfg.n_heads]
    if unknown:
        raise DPCInterpError(f"there is no head {unknown[0]}; this model has heads 0 to {model.cfg.n_heads - 1}")
    if not 0 <= beta <= 1 or alpha <= 0 or (threshold is not None and threshold <= 0):
        raise DPCInterpError("ACT needs beta from 0 to 1, and alpha and threshold above 0")


@dataclass(frozen=True)
class Act:
    """ACT with its options, as a method of `evaluate(contexts=...)`.

    Attributes:
        heads: (layer, head) pairs, see `choose_heads`.
        alpha, beta, threshold: see `attention_calibration`.

    Example:
        >>> import dpc_interp as dpc
        >>> act = dpc.Act(heads=((0, 1),), beta=0.5)
        >>> act
        Act(heads=((0, 1),), alpha=5.0, beta=0.5, threshold=None)
        >>> with act(dpc.load_model("reasoner")):
        ...     pass  # whatever the model reads here is calibrated
    """

    heads: tuple[tuple[int, int], ...]
    alpha: float = ALPHA
    beta: float = BETA
    threshold: float | None = None

    def __call__(self, model: HookedModel) -> AbstractContextManager[None]:
        """Return the context within which `model` is calibrated."""
        return attention_calibration(model, self.heads, alpha=self.alpha, beta=self.beta, threshold=self.threshold)


def find_sinks(
    pattern: Float[Tensor, "batch head pos pos"],
    starts: Int[Tensor, " batch"],
    stops: Int[Tensor, " batch"],
    alpha: float = ALPHA,
    threshold: float | None = None,
) -> Bool[Tensor, "batch head pos"]:
    """Find the attention sinks of each head.

    Args:
        pattern: attention of full forward passes.
        starts: for each row the first position that is read, after any padding; it is never a sink.
        stops: for each row the position after the last one that counts.
        alpha, threshold: see `attention_calibration`.

    Returns:
        True at the sinks.
    """
    position = torch.arange(pattern.shape[2], device=pattern.device)
    starts, stops = starts.to(pattern.device)[:, None], stops.to(pattern.device)[:, None]
    in_range = (position >= starts) & (position < stops)
    received = torch.einsum("bhij,bi->bhj", pattern, in_range.to(pattern))
    n_rows = (stops - position).clamp(min=1)  # rows that can attend to each position
    bound = alpha / (stops - starts).float() if threshold is None else threshold
    bound = torch.as_tensor(bound, dtype=torch.float32, device=pattern.device).to(pattern)
    above = received / n_rows[:, None] > bound.view(-1, 1, 1)
    return above & (in_range & (position > starts))[:, None]


def calibrate_pattern(
    pattern: Float[Tensor, "batch head dest src"], sinks: Bool[Tensor, "batch head src"], beta: float = BETA
) -> Float[Tensor, "batch head dest src"]:
    """Reduce the attention on sinks and give it to the other sources, in proportion to their attention.

    Args:
        pattern: attention of the calibrated heads.
        sinks: True at the sinks of each head.
        beta: the share of its attention that a sink keeps.

    Returns:
        The calibrated pattern; a row that attends to sinks only is unchanged.
    """
    at_sinks = sinks[:, :, None]
    others = pattern.masked_fill(at_sinks, 0.0)
    other_mass = others.sum(-1, keepdim=True)
    freed = (1 - beta) * (pattern - others).sum(-1, keepdim=True)
    # the clamp avoids 0 / 0 in rows that `where` discards
    calibrated = torch.where(at_sinks, beta * pattern, others + freed * others / other_mass.clamp(min=1e-30))
    return torch.where((other_mass > 0) & (freed > 0), calibrated, pattern)


@torch_defaults()
def head_gains(
    model: AnyModel,
    runs: Sequence[Transcript],
    prompt: AnyPrompt | None = None,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    threshold: float | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure on validation problems what calibrating one head at a time gains.

    The gain is the decrease of the loss of the written solutions. Yu et al. measure accuracy on multiple-choice tasks
    instead, which would cost a generation for each head here.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        runs: transcripts of validation problems; only their problems and questions are used.
        prompt: the soft prompt, or its name; None: the bare model.
        alpha, beta, threshold: see `attention_calibration`.
        batch_size: sequences in one forward pass, halved with a warning where memory runs out.
        progress: show a progress bar.

    Returns:
        One row per head: layer, head, gain (decrease of the mean NLL of the written rationale and answer, in nats,
        averaged over `runs`).

    Raises:
        DPCInterpError: no runs, a problem without a written rationale, a batch size below 1, a sequence that does not
            fit into memory, or see `attention_calibration`.

    Example:
        >>> import dpc_interp as dpc
        >>> model, problems = dpc.load_model("reasoner"), dpc.load_problems("story", "validation", n=1)
        >>> runs = dpc.generate(model, problems, max_new_tokens=1, progress=False)
        >>> len(dpc.head_gains(model, runs, progress=False)) == model.cfg.n_layers * model.cfg.n_heads
        True
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    if not runs:
        raise DPCInterpError("there are no runs to choose heads on; generate some on validation problems first")
    for run in runs:
        if not run.problem.rationale.strip():
            raise DPCInterpError(
                f"{run.problem.id} has no written rationale, on which heads are chosen; leave out such problems"
            )
    gold = [gold_transcript(model, run) for run in runs]
    gold.sort(key=lambda run: len(run.question_tokens) + len(run.generated_tokens))
    n_virtual = 0 if prompt is None else prompt.n_virtual

    def sum_of_losses(heads: Heads, batch: Sequence[Transcript]) -> float:
        n_read = torch.tensor([n_virtual + len(run.question_tokens) for run in batch])
        with attention_calibration(model, heads, alpha=alpha, beta=beta, threshold=threshold, n_read=n_read):
            return float(likelihood(model, batch, prompt).loss.sum())

    def mean_loss(heads: Heads) -> float:
        nonlocal batch_size
        hint = "leave out long problems, or load the model in bfloat16"
        total = 0.0
        for batch, loss in batches_with_backoff(gold, batch_size, partial(sum_of_losses, heads), hint):
            total += loss
            if batch[-1] is not gold[-1]:  # the last batch may be smaller; a halved one is kept for the other heads
                batch_size = len(batch)
        return total / len(gold)

    all_heads = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    plain = mean_loss([])
    bar = tqdm(all_heads, desc="ACT heads", unit="head", disable=not progress, leave=False)
    return pd.DataFrame([(*head, plain - mean_loss([head])) for head in bar], columns=["layer", "head", "gain"])


def choose_heads(gains: pd.DataFrame, *, n_heads: int | None = None) -> tuple[tuple[int, int], ...]:
    """Choose the heads that gain from calibration.

    Args:
        gains: of `head_gains`.
        n_heads: the largest number of heads; None: all that gain.

    Returns:
        (layer, head) pairs, the largest gain first.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> dpc.choose_heads(pd.DataFrame({"layer": [0, 0, 1], "head": [0, 1, 0], "gain": [0.1, -0.2, 0.3]}))
        ((1, 0), (0, 0))
    """
    best = gains[gains["gain"] > 0].sort_values(["gain", "layer", "head"], ascending=[False, True, True])
    pairs = best[["layer", "head"]].head(len(best) if n_heads is None else n_heads)
    return tuple((int(layer), int(head)) for layer, head in pairs.itertuples(index=False))
