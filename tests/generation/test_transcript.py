"""Generated tokens become text, answer and verdict."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpc_interp import Problem
from dpc_interp.generation.transcript import gold_transcript, make_transcript
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.hooked import HookedModel

PROBLEM = Problem("story", "Tom has 9 apples.", "9 + 8 = 17\n#### 17", "17", 1, "story-0")


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [("buys 8: 9 + 8 = 17\n#### 17", "17", True), ("9 + 8 = 19\n#### 19", "19", False), ("buys 8", None, False)],
)
def test_answer_is_extracted_and_checked(model: HookedModel, text: str, answer: str | None, correct: bool) -> None:
    """The stop token is one of the generated tokens but not of the text."""
    question = encode_question(model, PROBLEM.question)
    generated = torch.tensor([*model.tokenizer(text, add_special_tokens=False).input_ids, model.tokenizer.eos_token_id])
    run = make_transcript(model, PROBLEM, question, generated)
    assert (run.text, run.answer, run.correct) == (text, answer, correct)
    assert model.tokenizer.decode(run.question_tokens) == "<bos>Tom has 9 apples.\n"
    assert run.tokens.tolist() == question.tolist() + generated.tolist()


def test_gold_transcript_is_the_written_rationale(model: HookedModel, written: Callable) -> None:
    """`correct` stays that of the run: which instances PT answers correctly does not depend on the target."""
    wrong = written("buys 8: 9 + 8 = 19\n#### 19")
    wrong = make_transcript(model, PROBLEM, wrong.question_tokens, wrong.generated_tokens)
    gold = gold_transcript(model, wrong)
    assert (gold.text, gold.answer, gold.correct) == (PROBLEM.rationale, "17", False)
    assert torch.equal(gold.question_tokens, wrong.question_tokens)
    assert gold.generated_tokens[-1] == model.tokenizer.eos_token_id
