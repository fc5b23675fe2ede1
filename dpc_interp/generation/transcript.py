"""`Transcript`: what a model wrote for a problem, with the extracted answer and whether it is correct."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from dpc_interp.generation.steps import step_ends
from dpc_interp.models.encoding import encode_rationale
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.repr_html import card, first_line, text_block
from dpc_interp.tasks.answers import Extraction, answer_start, extract_answer, is_correct
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

    def __repr__(self) -> str:
        answer = None if self.answer is None else first_line(self.answer)
        outcome, n_tokens = "right" if self.correct else "wrong", len(self.generated_tokens)
        text = first_line(self.text)
        return f"Transcript({self.problem.id!r}, {outcome}, answer={answer!r}, {n_tokens} tokens, {text!r})"

    def _repr_html_(self) -> str:
        written = self.text[: answer_start(self.text)]
        rest = self.text[len(written) :]
        bounds = [0, *step_ends(written)]
        steps = [written[start:stop].strip() for start, stop in pairwise(bounds)]
        facts = {
            "answer": f"{'nothing that can be read' if self.answer is None else self.answer} "
            f"({'✓ right' if self.correct else '✗ wrong'}, expected {self.problem.answer})",
            "tokens": f"{len(self.generated_tokens)}{'' if self.finished else ', cut off'}",
        }
        blocks = [text_block(f"step {k}", step) for k, step in enumerate(filter(None, steps), 1)]
        answer = [text_block("answer", rest)] if rest.strip() else []
        question = text_block("question", self.problem.question)
        return card(f"Transcript of {self.problem.id}", facts, question, *blocks, *answer)

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
