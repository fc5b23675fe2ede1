"""Sanity checks: how far randomisation destroys the saliency (docs/method.md, section 7.3; Adebayo et al. 2018).

- `weights`: the weights of the blocks are randomised one after another, from the last to the first, on a copy of the
  model; the entries of each weight are shuffled. Embedding and unembedding, which may be tied, stay.
- `answers`: the tokens after the question are shuffled as labels of the loss, while the model reads the true ones: the
  patterns stay, only dL/dA changes.

The outcome is Spearman's correlation of I_l with that of the true model and answer, over the strictly causal edges into
the rationale. A saliency that did not depend on the model or the answer would stay at 1. S = A * dL/dA has the pattern
as a factor: shuffled answers, and any layer below the randomised ones, keep A and with it some correlation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.options import HeadReduction, Options
from dpc_interp.analysis.recorder import whole_map
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.analysis.schema import conform, in_order_of
from dpc_interp.analysis.segments import Segments, segment
from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.batch_splits import by_length
from dpc_interp.generation.transcript import Transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.soft_prompt import AnyPrompt, SoftPrompt, as_prompt
from dpc_interp.tasks.problem import check_distinct

Array = NDArray[np.float64]
SanityTest = Literal["weights", "answers"]
SanitySource = Literal["prompt", "all"]
"""Edges into the rationale that are compared: those from virtual tokens, or from every earlier position."""
Ranks = dict[str, dict[str, Array]]
"""By instance and source, the ranks [layer, edge] of I_l."""


@torch_defaults()
def saliency_sanity(
    model: AnyModel,
    runs: Sequence[Transcript],
    prompt: AnyPrompt | None,
    *,
    head_reduction: HeadReduction = Options.head_reduction,
    seed: int = Options.seed,
    batch_size: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """How the saliency of transcripts changes with randomised weights and shuffled answers.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name; it is copied, not changed.
        runs: transcripts generated with `prompt`, each with a rationale.
        prompt: the soft prompt, or its name; None: plain text, which has no edges from a prompt.
        head_reduction: see `saliency`.
        seed: seed of the shuffles.
        batch_size: sequences in one pass.
        progress: show a progress bar.

    Returns:
        The frame `sanity` of `schema.py`.

    Raises:
        DPCInterpError: no runs, or one without a rationale.
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    check_distinct([run.problem for run in runs])
    segments = [segment(run, tokenizer_of(model), 0 if prompt is None else prompt.n_virtual) for run in runs]
    if not runs or not all(s.steps for s in segments):
        raise DPCInterpError(
            "saliency_sanity needs runs with a rationale; keep only dpc.drop_empty_rationales(model, runs)"
        )
    n_layers = model.cfg.n_layers
    rows: list[tuple[object, ...]] = []
    with tqdm(total=n_layers + 2, desc="saliency sanity", disable=not progress, leave=False) as bar:

        def compare(other: HookedModel, test: SanityTest, n_randomised: int, targets: list[Tensor] | None) -> None:
            ranks = _rank_edges(other, runs, segments, prompt, head_reduction, batch_size, targets)
            for instance, source in product(ranks, get_args(SanitySource) if prompt else ("all",)):
                values = _row_correlations(ranks[instance][source], true_ranks[instance][source])
                rows.extend((instance, test, n_randomised, layer, source, value) for layer, value in enumerate(values))
            bar.update()

        true_ranks = _rank_edges(model, runs, segments, prompt, head_reduction, batch_size, None)
        bar.update()
        compare(model, "answers", 0, [_shuffle_answer(run, seed) for run in runs])
        randomised = deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        for n_randomised in range(1, n_layers + 1):
            _randomise_block(randomised, n_layers - n_randomised, generator)
            compare(randomised, "weights", n_randomised, None)
    frame = pd.DataFrame(rows, columns=["instance", "test", "n_randomised", "layer", "source", "value"])
    return conform(in_order_of(frame, [run.problem.id for run in runs]), "sanity")


def _rank_edges(
    model: HookedModel,
    runs: Sequence[Transcript],
    segments: Sequence[Segments],
    prompt: SoftPrompt | None,
    head_reduction: HeadReduction,
    batch_size: int,
    targets: list[Tensor] | None,
) -> Ranks:
    """Rank I_l over the edges into each rationale."""
    from scipy.stats import rankdata

    ranks: Ranks = {}
    n_virtual = 0 if prompt is None else prompt.n_virtual
    order = by_length([s.length for s in segments])
    for batch_start in range(0, len(order), batch_size):
        indices = order[batch_start : batch_start + batch_size]
        layers = saliency_pass(
            model,
            [runs[i].tokens for i in indices],
            [len(runs[i].question_tokens) for i in indices],
            None if prompt is None else prompt.vectors,
            lambda blocks: whole_map(blocks).cpu(),
            head_reduction=head_reduction,
            targets=None if targets is None else [targets[i] for i in indices],
            prompt_rows=False,
        ).layers
        flow = torch.stack(layers, dim=1)  # [batch, layer, dest, src]
        for row, i in enumerate(indices):
            start, stop = segments[i].rationale
            # in float64, because newer versions of scipy give ranks in the dtype of the values
            edges = flow[row, :, start - n_virtual : stop - n_virtual].double().numpy()
            causal = np.tri(stop - start, flow.shape[-1], start - 1, dtype=bool)
            ranks[runs[i].problem.id] = {
                "prompt": rankdata(edges[:, :, :n_virtual].reshape(len(edges), (stop - start) * n_virtual), axis=1),
                "all": rankdata(edges[:, causal], axis=1),
            }
    return ranks


def _row_correlations(a: Array, b: Array) -> Array:
    """Pearson's correlation of each row of `a` [layer, edge] with that of `b`; for ranks it is Spearman's."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)


def _shuffle_answer(run: Transcript, seed: int) -> Int[Tensor, " n_tokens"]:
    """The tokens of a transcript, the generated ones shuffled by a seed of the instance's own."""
    generated = run.generated_tokens.tolist()
    random.Random(f"{seed}/{run.problem.id}").shuffle(generated)
    return torch.cat([run.question_tokens, torch.tensor(generated)])


@torch.no_grad()
def _randomise_block(model: HookedModel, layer: int, generator: torch.Generator) -> None:
    """Shuffle the entries of every weight of a block."""
    for weight in model.blocks[layer].parameters():
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))
