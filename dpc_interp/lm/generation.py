"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours: one forward over `pad | P | Q` writes the
prompt into the cache through its hook, then each step feeds one token. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from dpc_interp.errors import DPCInterpError, NonFiniteError
from dpc_interp.lm.hooked import CachedDecoding, HookedModel
from dpc_interp.lm.soft_prompt import (
    PLACEHOLDER,
    PromptEdit,
    SoftPrompt,
    check_length,
    check_prompt,
    edit_prompt,
    write_prompt,
)
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.problems import Problem


@dataclass(frozen=True)
class Transcript:
    """What a model wrote for a problem. `generated_tokens` ends with the stop token where the model wrote one."""

    problem: Problem
    question_tokens: Int[Tensor, " n_question"]
    generated_tokens: Int[Tensor, " n_generated"]
    text: str
    answer: str | None
    correct: bool


def tokenizer_of(model: HookedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer; a model without one is refused."""
    if model.tokenizer is None:
        raise DPCInterpError("this model has no tokenizer; load it with one")
    return model.tokenizer


def question_tokens(model: HookedModel, question: str) -> Int[Tensor, " n_question"]:
    """Token ids of a question as the model reads it: BOS where the model has one, the question, a line break.

    Raises:
        DPCInterpError: the tokenizer does not know a word of the question.
    """
    tokenizer = tokenizer_of(model)
    coded = tokenizer(question + "\n", add_special_tokens=False, return_offsets_mapping=True)
    ids = coded.input_ids
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        first, last = coded.offset_mapping[ids.index(tokenizer.unk_token_id)]
        unknown = (question[first:last].strip() or question[first:last])[:40]
        raise DPCInterpError(f"the model's vocabulary lacks {unknown!r}; ask in the words of its tasks")
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    return torch.tensor(start + ids)


@torch.no_grad()
def generate(
    model: HookedModel,
    problems: Sequence[Problem],
    prompt: SoftPrompt | None = None,
    *,
    plans: Sequence[PromptEdit] | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 128,
    progress: bool = True,
) -> list[Transcript]:
    """Answer problems by greedy decoding.

    Args:
        prompt: the soft prompt before each question; None: the bare model.
        plans: one corruption of the prompt for each problem (METHOD 5); None: the prompt as it is.
        max_new_tokens: decoding stops there at the latest.
        batch_size: questions decoded together; the text does not depend on it.

    Returns:
        One transcript a problem, in the order given.

    Raises:
        DPCInterpError: a prompt that does not fit, a question past the context length, plans without a prompt or not
            one a problem.
        NonFiniteError: the model's logits are not finite.
    """
    vectors = None if prompt is None else prompt.vectors
    if vectors is not None:
        check_prompt(model, vectors)
    if plans is not None and (prompt is None or len(plans) != len(problems)):
        raise DPCInterpError("corruption needs a soft prompt and one plan for each problem")
    questions = [question_tokens(model, problem.question) for problem in problems]
    n_virtual = 0 if vectors is None else vectors.shape[0]
    check_length(model, n_virtual + max((len(q) for q in questions), default=0) + max_new_tokens)
    order = sorted(range(len(problems)), key=lambda i: (len(questions[i]), i))
    written: dict[int, Int[Tensor, " n_generated"]] = {}
    with tqdm(total=len(problems), desc="generate", unit="problem", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch_plans = None if plans is None else [plans[i] for i in chosen]
            rows = decode(model, [questions[i] for i in chosen], vectors, batch_plans, max_new_tokens)
            written.update(zip(chosen, rows, strict=True))
            bar.update(len(chosen))
    return [transcript(model, p, questions[i], written[i]) for i, p in enumerate(problems)]


def decode(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
) -> list[Int[Tensor, " _"]]:
    """Decode one batch: left padding first, then the prompt, then the question."""
    n_virtual = 0 if vectors is None else vectors.shape[0]
    tokens, mask, starts = left_padded(questions, n_virtual)
    hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = []
    if vectors is not None:
        hooks.append(("hook_embed", write_prompt(vectors, starts)))
        if plans is not None:
            hooks.append(("hook_embed", edit_prompt(plans, n_virtual, starts)))

    read = CachedDecoding(model, len(questions))
    with model.hooks(fwd_hooks=hooks):
        logits = read(tokens, mask)
    if not torch.isfinite(logits[:, -1]).all():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    stop = tokenizer_of(model).eos_token_id
    written = torch.full((len(questions), max_new_tokens), stop)
    alive = torch.arange(len(questions))
    for step in range(max_new_tokens):
        last = logits[:, -1].argmax(-1)
        written[alive, step] = last.cpu()
        going = last != stop
        if not going.any() or step == max_new_tokens - 1:
            break
        if not going.all():
            read.keep(going)
            alive, last = alive[going.cpu()], last[going]
        logits = read(last[:, None])
    return [_until_stop(row, stop) for row in written]


def left_padded(
    questions: Sequence[Int[Tensor, " _"]], n_virtual: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """A batch that ends together: tokens with placeholders before each question, mask (0: padding), prompt starts."""
    width = n_virtual + max(len(q) for q in questions)
    starts = torch.tensor([width - n_virtual - len(q) for q in questions])
    tokens = torch.full((len(questions), width), PLACEHOLDER)
    for row, question in enumerate(questions):
        tokens[row, width - len(question) :] = question
    return tokens, (torch.arange(width) >= starts[:, None]).long(), starts


def _until_stop(row: Int[Tensor, " max_new"], stop: int) -> Int[Tensor, " n_generated"]:
    ends = (row == stop).nonzero()
    return row[: int(ends[0]) + 1] if len(ends) else row


def transcript(
    model: HookedModel,
    problem: Problem,
    question: Int[Tensor, " n_question"],
    generated: Int[Tensor, " n_generated"],
) -> Transcript:
    """Decode the text, read its answer and check it."""
    text = str(tokenizer_of(model).decode(generated, skip_special_tokens=True))
    answer = extract_answer(text)
    return Transcript(problem, question, generated, text, answer, is_correct(answer, problem.answer))
