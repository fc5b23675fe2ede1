"""Teacher forcing: the likelihood of each token of a transcript, and the token that the model would have chosen.

nll_i = -log p(token i | P, tokens before i)      for the tokens after the question, the stop token included
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from dpc_interp.errors import NonFiniteError
from dpc_interp.generation.transcript import Transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.encoding import loss_mask
from dpc_interp.models.hooked import HookedModel, check_length
from dpc_interp.models.token_nll import token_nll
from dpc_interp.prompts.embed_hooks import forward_with_placeholders, prompted
from dpc_interp.prompts.soft_prompt import SoftPrompt


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of a right-padded batch of transcripts, over n_virtual + longest positions, on the CPU.

    Attributes:
        nll: negative log-likelihood of each generated token (nats), 0 at all other positions.
        predicted: the most likely token at each position given those before it, -1 where no logits predict it.
        loss: mean NLL of the generated tokens of each row, the loss of the saliency (docs/method.md, section 2).
    """

    nll: Float[Tensor, "batch pos"]
    predicted: Int[Tensor, "batch pos"]
    loss: Float[Tensor, " batch"]


@torch_defaults()
def likelihood(model: HookedModel, runs: Sequence[Transcript], prompt: SoftPrompt | None = None) -> Likelihood:
    """Compute the likelihood of transcripts in one forward pass, on which hooks of the caller act.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        runs: the transcripts, one a row.
        prompt: the soft prompt before each question; None: the bare model.

    Returns:
        The likelihood of every generated token.

    Raises:
        DPCInterpError: a prompt that does not fit, or a sequence longer than the context.
        NonFiniteError: the loss is not finite.
    """
    n_virtual = 0 if prompt is None else prompt.n_virtual
    tokens = pad_sequence([run.tokens for run in runs], batch_first=True).to(model.cfg.device)
    check_length(model, n_virtual + tokens.shape[1])
    with nullcontext() if prompt is None else prompted(model, prompt):
        logits = forward_with_placeholders(model, tokens, n_virtual)
    # The last virtual token predicts the first token. Without a prompt nothing predicts it, so labels start one later.
    next_token_logits = logits[:, max(n_virtual, 1) - 1 : -1]
    labels = tokens[:, -next_token_logits.shape[1] :]
    nll = token_nll(next_token_logits.flatten(0, 1), labels.flatten()).view(labels.shape)
    n_unpredicted = n_virtual + tokens.shape[1] - labels.shape[1]
    nll = pad(nll, (n_unpredicted, 0)).cpu()
    predicted = pad(next_token_logits.argmax(-1), (n_unpredicted, 0), value=-1).cpu()
    mask = loss_mask([len(run.question_tokens) for run in runs], [len(run.tokens) for run in runs], tokens.shape[1])
    nll = nll * pad(mask, (n_virtual, 0))
    loss = nll.sum(1) / mask.sum(1)
    if not torch.isfinite(loss).all():
        raise NonFiniteError("the loss is not finite; load the model in float32 or bfloat16")
    return Likelihood(nll, predicted, loss)
