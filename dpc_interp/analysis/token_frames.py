"""The frames `tokens` (rationale tokens in every layer) and `instances` of an analysed batch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dpc_interp.analysis.schema import conform
from dpc_interp.analysis.segments import Segments
from dpc_interp.generation.transcript import Transcript


def tokens_frame(
    tokenizer: PreTrainedTokenizerBase,
    runs: list[Transcript],
    segments: list[Segments],
    from_prompt: Float[Tensor, "batch layer dest"],
    nll: Float[Tensor, "batch pos"],
) -> pd.DataFrame:
    """The `tokens` frame, which has no rows without virtual tokens.

    Args:
        tokenizer: that decodes single tokens.
        runs: the transcripts of the batch.
        segments: of each transcript.
        from_prompt: mean flow from the virtual tokens into each position after the prompt.
        nll: of each token, over the virtual tokens too.
    """
    n = np.array([segment.n_rationale_tokens for segment in segments])
    starts = np.array([segment.rationale[0] for segment in segments])
    late_starts = np.array([segment.late[0] for segment in segments])
    row = np.repeat(np.arange(len(runs)), n)
    position_in_rationale = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)
    position = starts[row] + position_in_rationale
    ids = np.concatenate([run.generated_tokens[:k].numpy() for run, k in zip(runs, n, strict=True)])
    distinct, index = np.unique(ids, return_inverse=True)
    texts = np.array([str(tokenizer.decode([i])) for i in distinct.tolist()], dtype=np.object_)
    steps = [np.repeat(np.arange(len(s.steps)), [stop - start for start, stop in s.steps]) for s in segments]
    one_layer = pd.DataFrame(
        {
            "instance": np.array([run.problem.id for run in runs], dtype=np.object_)[row],
            "position": position_in_rationale,
            "token": texts[index],
            "step": np.concatenate(steps),
            "late": position >= late_starts[row],
            "nll": nll.numpy()[row, position],
        }
    )
    values = from_prompt.numpy()
    dest = position - segments[0].prompt[1]
    if not segments[0].prompt[1]:
        one_layer, row, dest = one_layer.iloc[:0], row[:0], dest[:0]
    layers = [one_layer.assign(layer=layer, value=values[row, layer, dest]) for layer in range(values.shape[1])]
    return conform(pd.concat(layers), "tokens")


def instances_frame(runs: list[Transcript], segments: list[Segments], nll: Float[Tensor, "batch pos"]) -> pd.DataFrame:
    """The `instances` frame; arguments as in `tokens_frame`."""
    last_answer_token = [segment.answer[1] - 1 for segment in segments]  # an empty answer ends where the rationale does
    n_generated = torch.tensor([len(run.generated_tokens) for run in runs])
    frame = pd.DataFrame(
        {
            "instance": [run.problem.id for run in runs],
            "task": [run.problem.task for run in runs],
            "correct": [run.correct for run in runs],
            "n_steps": [run.problem.n_steps for run in runs],
            "n_rationale_tokens": [segment.n_rationale_tokens for segment in segments],
            "nll": (nll.sum(1) / n_generated).numpy(),
            "answer_nll": nll.numpy()[np.arange(len(runs)), last_answer_token],
        }
    )
    return conform(frame, "instances")
