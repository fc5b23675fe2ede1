"""`Transcript`: what a model wrote for a problem, with the extracted answer and whether it is correct."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from dpc_interp.models.encoding import encode_rationale
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.tasks.answers import Extraction, extract_answer, is_correct
from dpc_interp.tasks.problem import Problem


@dataclass(frozen=True)
class Transcript:
    """What a model wrote for a problem.

    Attributes:
        problem: the problem that was answered.
        question_tokens: ids of the question as the model read it, template and BOS included.
        generated_tokens: ids that the model wrote; the last one is the stop token where the model ended the text.
        text: the generated tokens as text, without special tokens.
        answer: the extracted answer; None: the text has none.
        correct: whether the answer equals that of the problem.
        finished: whether the text ended, by a stop token or at a stop string; False: it was cut off at
            `max_new_tokens`.
        ends_with_stop: whether the last generated token is a stop token, which belongs to no segment.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> (run,) = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
        >>> len(run.tokens) == len(run.question_tokens) + len(run.generated_tokens)
        True
    """

    problem: Problem
    question_tokens: Int[Tensor, " n_question"]
    generated_tokens: Int[Tensor, " n_generated"]
    text: str
    answer: str | None
    correct: bool
    finished: bool = True
    ends_with_stop: bool = False

    @property
    def tokens(self) -> Int[Tensor, " n_tokens"]:
        """Question and generated tokens."""
        return torch.cat([self.question_tokens, self.generated_tokens])


def make_transcript(
    model: HookedModel,
    problem: Problem,
    question: Int[Tensor, " n_question"],
    generated: Int[Tensor, " n_generated"],
    *,
    max_new_tokens: int | None = None,
    extraction: Extraction | None = None,
) -> Transcript:
    """Decode the generated tokens, extract the answer and check it.

    Args:
        model: its tokenizer decodes the tokens.
        problem: the problem that was answered.
        question: ids of the question.
        generated: ids that the model wrote.
        max_new_tokens: the length at which the text would have been cut off; None: it was not limited.
        extraction: how the answer is read, see `extract_answer`; None: that of the problem.

    Returns:
        The transcript.
    """
    text = str(tokenizer_of(model).decode(generated, skip_special_tokens=True))
    answer = extract_answer(text, problem.extraction if extraction is None else extraction)
    ends_with_stop = len(generated) > 0 and int(generated[-1]) in end_tokens(model)
    return Transcript(
        problem,
        question,
        generated,
        text,
        answer,
        is_correct(answer, problem.answer),
        finished=ends_with_stop or max_new_tokens is None or len(generated) < max_new_tokens,
        ends_with_stop=ends_with_stop,
    )


def gold_transcript(model: HookedModel, run: Transcript) -> Transcript:
    """The problem's written rationale as if the model had written it.

    Args:
        model: its tokenizer encodes the rationale.
        run: what the model wrote for the problem.

    Returns:
        The transcript of the written rationale; `correct` stays that of `run`.
    """
    generated = encode_rationale(model, run.problem.rationale)
    return replace(make_transcript(model, run.problem, run.question_tokens, generated), correct=run.correct)
