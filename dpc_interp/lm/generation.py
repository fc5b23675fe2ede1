"""Problems in, transcripts out: questions as the model reads them, greedy answers, their text read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.decoding import decode
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.oom import check_batch_size, in_batches
from dpc_interp.lm.soft_prompt import PromptEdit, SoftPrompt, check_length, check_prompt
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


def questions_of(
    model: HookedModel, problems: Sequence[Problem], n_virtual: int, max_new_tokens: int
) -> list[Int[Tensor, " _"]]:
    """Token ids of every question, with room for `n_virtual` tokens before it and `max_new_tokens` behind.

    Raises:
        DPCInterpError: a question past the context length, or in words that the tokenizer does not know.
    """
    questions = [question_tokens(model, problem.question) for problem in problems]
    check_length(model, n_virtual + max((len(q) for q in questions), default=0) + max_new_tokens)
    return questions


def by_length(lengths: Sequence[int]) -> list[int]:
    """The order in which sequences make up batches: the short ones first, equal ones as they come."""
    return sorted(range(len(lengths)), key=lambda i: (lengths[i], i))


@torch.no_grad()
def generate(
    model: HookedModel,
    problems: Sequence[Problem],
    prompt: SoftPrompt | None = None,
    *,
    plans: Sequence[PromptEdit] | None = None,
    drafts: Sequence[Int[Tensor, " _"]] | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 128,
    progress: bool = True,
) -> list[Transcript]:
    """Answer problems by greedy decoding.

    Args:
        prompt: the soft prompt before each question; None: the bare model.
        plans: one corruption of the prompt for each problem (METHOD 5), which depends on its vectors alone: equal ones
            are applied once a batch. None: the prompt as it is.
        drafts: for each problem the tokens of a likely answer, such as the one under the uncorrupted prompt: some are
            read ahead, and those that the model would write are taken. None: all is decoded. The text does not depend
            on it.
        max_new_tokens: decoding stops there at the latest.
        batch_size: questions decoded together, halved with a warning where memory runs out; the text does not depend on
            it.

    Returns:
        One transcript a problem, in the order given.

    Raises:
        DPCInterpError: a prompt that does not fit, a question past the context length, plans without a prompt or not
            one a problem, drafts not one a problem.
        NonFiniteError: the model's logits are not finite.
    """
    vectors = None if prompt is None else prompt.vectors
    if vectors is not None:
        check_prompt(model, vectors)
    if plans is not None and (prompt is None or len(plans) != len(problems)):
        raise DPCInterpError("corruption needs a soft prompt and one plan for each problem")
    if drafts is not None and len(drafts) != len(problems):
        raise DPCInterpError(f"there are {len(drafts)} drafts for {len(problems)} problems; give one for each")
    check_batch_size(batch_size)
    questions = questions_of(model, problems, 0 if vectors is None else vectors.shape[0], max_new_tokens)
    order = by_length([len(question) for question in questions])
    written: dict[int, Int[Tensor, " n_generated"]] = {}

    def work(chosen: Sequence[int]) -> list[Int[Tensor, " n_generated"]]:
        of_batch = None if plans is None else [plans[i] for i in chosen]
        begun = None if drafts is None else [drafts[i] for i in chosen]
        return decode(model, [questions[i] for i in chosen], vectors, of_batch, max_new_tokens, begun)

    with tqdm(total=len(problems), desc="generate", unit="problem", disable=not progress, leave=False) as bar:
        for chosen, rows in in_batches(order, batch_size, work, "shorten the question, or load the model in bfloat16"):
            written.update(zip(chosen, rows, strict=True))
            bar.update(len(chosen))
    return [transcript(model, p, questions[i], written[i]) for i, p in enumerate(problems)]


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
