"""Teacher forcing: how likely each token of a transcript is, and what the model would have written in its place.

nll_i = -log p(token i | P, tokens before i)      for the tokens after the question, the stop token included
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length, logits_behind, prompted


@dataclass(frozen=True)
class Likelihood:
    """A right-padded batch over n_virtual + longest positions.

    `nll` (nats) is 0 outside what was written; `predicted` is the most likely token at each position, -1 where nothing
    predicts it; `loss` is each row's mean NLL of what was written, the loss of the saliency (METHOD 2).
    """

    nll: Float[Tensor, "batch pos"]
    predicted: Int[Tensor, "batch pos"]
    loss: Float[Tensor, " batch"]


@torch.no_grad()
def likelihood(model: HookedModel, runs: Sequence[Transcript], prompt: SoftPrompt | None = None) -> Likelihood:
    """One forward pass over transcripts; hooks of the caller's act on it.

    Raises:
        DPCInterpError: a prompt that does not fit, or a sequence past the context length.
        NonFiniteError: the loss is not finite.
    """
    n_virtual = 0 if prompt is None else prompt.n_virtual
    rows = [torch.cat([run.question_tokens, run.generated_tokens]) for run in runs]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.cfg.device)
    check_length(model, n_virtual + tokens.shape[1])
    with nullcontext() if prompt is None else prompted(model, prompt):
        logits = logits_behind(model, tokens, n_virtual)
    behind = logits[:, max(n_virtual, 1) - 1 : -1]  # predicts the tokens; without a prompt all but the first
    told = tokens[:, -behind.shape[1] :]
    nll = cross_entropy(behind.flatten(0, 1).float(), told.flatten(), reduction="none").view(told.shape)
    first = n_virtual + tokens.shape[1] - told.shape[1]
    nll = torch.nn.functional.pad(nll, (first, 0)).cpu()
    predicted = torch.nn.functional.pad(behind.argmax(-1), (first, 0), value=-1).cpu()
    positions = torch.arange(nll.shape[1])
    starts = torch.tensor([n_virtual + len(run.question_tokens) for run in runs])[:, None]
    written = torch.tensor([len(run.generated_tokens) for run in runs])[:, None]
    nll = nll * ((positions >= starts) & (positions < starts + written))
    loss = nll.sum(1) / written[:, 0]
    if not torch.isfinite(loss).all():
        raise NonFiniteError("the loss is not finite; load the model in float32 or bfloat16")
    return Likelihood(nll, predicted, loss)
