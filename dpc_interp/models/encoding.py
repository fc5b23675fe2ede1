"""Questions and rationales as token ids, and the mask of the tokens that a loss is taken on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel, check_length, tokenizer_of
from dpc_interp.tasks.problem import Problem


def encode_question(model: HookedModel, question: str) -> Int[Tensor, " n_question"]:
    """Token ids of a question as the model reads it: BOS where the model has one, the question, a line break.

    Args:
        model: the model whose tokenizer is used.
        question: text of the question, without the line break.

    Returns:
        Token ids on the CPU.

    Raises:
        DPCInterpError: the tokenizer does not know a word of the question.
    """
    tokenizer = tokenizer_of(model)
    encoding = tokenizer(question + "\n", add_special_tokens=False, return_offsets_mapping=True)
    ids = encoding.input_ids
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        start, stop = encoding.offset_mapping[ids.index(tokenizer.unk_token_id)]
        unknown = (question[start:stop].strip() or question[start:stop])[:40]
        raise DPCInterpError(f"the model's vocabulary lacks {unknown!r}; use only words of its tasks")
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    return torch.tensor(bos + ids)


def encode_questions(
    model: HookedModel, problems: Sequence[Problem], n_virtual: int, max_new_tokens: int
) -> list[Int[Tensor, " _"]]:
    """Token ids of every question.

    Args:
        model: the model whose tokenizer is used.
        problems: the problems whose questions are encoded.
        n_virtual: virtual tokens before each question.
        max_new_tokens: tokens that will be generated after it.

    Returns:
        Token ids of each question, as `encode_question` gives them.

    Raises:
        DPCInterpError: a sequence longer than the context, or words that the tokenizer does not know.
    """
    questions = [encode_question(model, problem.question) for problem in problems]
    check_length(model, n_virtual + max((len(q) for q in questions), default=0) + max_new_tokens)
    return questions


def encode_rationale(model: HookedModel, rationale: str) -> Int[Tensor, " n_rationale"]:
    """Token ids of a written rationale (with its answer line), followed by the stop token.

    Args:
        model: the model whose tokenizer is used.
        rationale: text of the rationale.
    """
    tokenizer = tokenizer_of(model)
    return torch.tensor([*tokenizer(rationale, add_special_tokens=False).input_ids, tokenizer.eos_token_id])


def loss_mask(
    n_question: Sequence[int], lengths: Sequence[int], width: int, device: torch.device | str | None = None
) -> Bool[Tensor, "batch pos"]:
    """True at the tokens in the loss of a right-padded batch: those after the question and before the padding.

    Args:
        n_question: question tokens of each row.
        lengths: tokens of each row.
        width: positions of the batch.
        device: device of the mask; None: PyTorch's default device.
    """
    positions = torch.arange(width, device=device)
    starts = torch.tensor(n_question, device=device)[:, None]
    stops = torch.tensor(lengths, device=device)[:, None]
    return (positions >= starts) & (positions < stops)
