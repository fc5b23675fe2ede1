"""Sanity checks of the saliency: what should destroy it, and how far it does (METHOD 7.3; Adebayo et al. 2018).

- `weights`: the blocks' weights are randomised one after another from the last to the first, on a copy of the model;
  each weight keeps its own entries, in a random order. The embedding and the unembedding, which may be tied, stay.
- `answers`: the tokens after the question are shuffled where the loss looks for them, while the model reads the true
  ones: the patterns stay, only dL/dA changes.

What is left is Spearman's correlation of I_l with that of the true model and answer, over the strictly causal edges
into the rationale. A saliency that told nothing of the model or the answer would stay at 1. Note that S = A * dL/dA has
the pattern as a factor: shuffled answers, and any layer below the randomised ones, keep A as it is and with it some
correlation.
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
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.saliency import HeadReduction, flow_pass
from dpc_interp.analysis.segments import Segments, segment
from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import SoftPrompt
from dpc_interp.tasks.problems import check_distinct

Array = NDArray[np.float64]
SanityTest = Literal["weights", "answers"]
SanitySource = Literal["prompt", "all"]
"""Which edges into the rationale are compared: those from virtual tokens, or from every earlier position."""


def saliency_sanity(
    model: HookedModel,
    runs: Sequence[Transcript],
    prompt: SoftPrompt,
    *,
    head_reduction: HeadReduction = "abs_of_sum",
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """How the saliency of transcripts changes with randomised weights and shuffled answers.

    Args:
        runs: transcripts made with `prompt`, each with a rationale.
        seed: of the random orders.

    Returns:
        instance, test (`weights`, `answers`), n_randomised (blocks from the top; 0 for `answers`), layer, source
        (`prompt`, `all`), value: Spearman's correlation with the true saliency, NaN where either is constant.

    Raises:
        DPCInterpError: no runs, or one without a rationale.
    """
    check_distinct([run.problem for run in runs])
    layouts = [segment(run, tokenizer_of(model), prompt.n_virtual) for run in runs]
    if not runs or not all(layout.steps for layout in layouts):
        raise DPCInterpError("saliency_sanity needs runs with a rationale; keep dpc.with_rationale(runs, model)")
    n_layers = model.cfg.n_layers
    rows: list[tuple[object, ...]] = []
    with tqdm(total=n_layers + 2, desc="saliency sanity", disable=not progress, leave=False) as bar:

        def compared(of: HookedModel, test: SanityTest, n_randomised: int, targets: list[Tensor] | None = None) -> None:
            changed = _ranked(of, runs, layouts, prompt, head_reduction, batch_size, targets)
            for instance, source in product(changed, get_args(SanitySource)):
                values = _correlation(changed[instance][source], true[instance][source])
                rows.extend((instance, test, n_randomised, layer, source, value) for layer, value in enumerate(values))
            bar.update()

        true = _ranked(model, runs, layouts, prompt, head_reduction, batch_size, None)
        bar.update()
        compared(model, "answers", 0, [_shuffled(run, seed) for run in runs])
        other = deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        for n_randomised in range(1, n_layers + 1):
            _randomise(other, n_layers - n_randomised, generator)
            compared(other, "weights", n_randomised)
    columns = ["instance", "test", "n_randomised", "layer", "source", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    rank = {run.problem.id: i for i, run in enumerate(runs)}
    return frame.sort_values("instance", key=lambda ids: ids.map(rank), kind="stable", ignore_index=True)


def _ranked(
    model: HookedModel,
    runs: Sequence[Transcript],
    layouts: Sequence[Segments],
    prompt: SoftPrompt,
    how: HeadReduction,
    batch_size: int,
    targets: list[Tensor] | None,
) -> dict[str, dict[str, Array]]:
    """By instance and source the ranks [layer, edge] of I_l over the edges into the rationale."""
    ranked = {}
    order = sorted(range(len(runs)), key=lambda i: layouts[i].length)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        maps: dict[int, Tensor] = {}

        def keep(layer: int, flow: Float[Tensor, "batch dest src"], maps: dict[int, Tensor] = maps) -> None:
            maps[layer] = flow.cpu()

        flow_pass(
            model,
            [torch.cat([runs[i].question_tokens, runs[i].generated_tokens]) for i in chosen],
            [len(runs[i].question_tokens) for i in chosen],
            prompt.vectors,
            keep,
            head_reduction=how,
            targets=None if targets is None else [targets[i] for i in chosen],
            prompt_rows=False,
        )
        flows = torch.stack([maps[layer] for layer in range(model.cfg.n_layers)], dim=1)
        for row, i in enumerate(chosen):
            first, stop = layouts[i].rationale
            edges = flows[row, :, first - prompt.n_virtual : stop - prompt.n_virtual]
            causal = torch.ones(stop - first, flows.shape[-1], dtype=torch.bool).tril(first - 1)
            ranked[runs[i].problem.id] = {
                "prompt": rankdata(edges[:, :, : prompt.n_virtual].flatten(1).numpy(), axis=1),
                "all": rankdata(edges[:, causal].numpy(), axis=1),
            }
    return ranked


def _correlation(a: Array, b: Array) -> Array:
    """Pearson's correlation of each row of `a` [layer, edge] with that of `b`: Spearman's, for ranks."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)


def _shuffled(run: Transcript, seed: int) -> Int[Tensor, " n_tokens"]:
    """Question and generated tokens, the latter in a random order that is its own for each instance."""
    written = run.generated_tokens.tolist()
    random.Random(f"{seed}/{run.problem.id}").shuffle(written)
    return torch.cat([run.question_tokens, torch.tensor(written)])


@torch.no_grad()
def _randomise(model: HookedModel, layer: int, generator: torch.Generator) -> None:
    """Put the entries of every weight of a block in a random order."""
    for weight in model.blocks[layer].parameters():
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))
