"""What the reasoner reads: training questions alone, dialects in their stated shares, rules that its answers obey."""

from __future__ import annotations

import re
from itertools import islice

import pandas as pd
import pytest

from dpc_interp.reasoner.corpus import DIALECTS, WITH_PREFIX, WITHOUT_PREFIX, Document, documents, terse
from dpc_interp.tasks.answers import extract_answer
from dpc_interp.tasks.problems import SYNTHETIC, load_problems, split_of

N = 4000
RULE = re.compile(r"(blip|zorp|quix) ([+-]) (\d+)")


@pytest.fixture(scope="module")
def read() -> list[Document]:
    return list(islice(documents(11), N))


def dialect_of(document: Document) -> str:
    """Told from the text: other text has no answer, a bare answer is one line, only full steps name what they do."""
    if extract_answer(document.response) is None:
        return "other"
    *steps, _ = document.response.splitlines()
    if not steps:
        return "bare"
    return "steps" if any(": " in step for step in steps) else "terse"


def task_of(question: str) -> str:
    if re.search(r"blip|zorp|quix", question):
        return "rule"
    if re.search(r"\d A \d.* E$", question):
        return "choice"
    return "algebra" if "=" in question else "story"


def test_only_questions_of_the_training_split_are_read(read: list[Document]) -> None:
    assert {split_of(document.question) for document in read} == {"train"}
    other = [document.response for document in read if dialect_of(document) == "other"]
    assert len(other) > 300
    assert {split_of(response) for response in other} == {"train"}, "questions written as other text too"


def test_no_validation_or_test_question_occurs_anywhere(read: list[Document]) -> None:
    held_out = {
        p.question for task in SYNTHETIC for split in ("validation", "test") for p in load_problems(task, split, n=200)
    }
    assert not held_out & {text for document in read for text in (document.question, document.response)}


def test_tasks_come_in_equal_shares(read: list[Document]) -> None:
    shares = pd.Series([task_of(document.question) for document in read]).value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx(dict.fromkeys(SYNTHETIC, 0.25), abs=0.035)


@pytest.mark.parametrize(("prefixed", "percent"), [(True, WITH_PREFIX), (False, WITHOUT_PREFIX)])
def test_dialects_have_their_shares(read: list[Document], prefixed: bool, percent: tuple[int, ...]) -> None:
    assert sum(percent) == 100
    chosen = [dialect_of(document) for document in read if bool(document.prefix) == prefixed]
    assert len(chosen) > 800
    shares = pd.Series(chosen).value_counts(normalize=True).reindex(list(DIALECTS), fill_value=0)
    assert shares.to_dict() == pytest.approx({d: p / 100 for d, p in zip(DIALECTS, percent, strict=True)}, abs=0.05)


def test_without_a_prefix_the_bare_answer_is_the_likeliest() -> None:
    assert max(zip(WITHOUT_PREFIX, DIALECTS, strict=True))[1] == "bare"
    assert max(zip(WITH_PREFIX, DIALECTS, strict=True))[1] == "steps"


def test_answers_obey_the_rules_of_their_prefix(read: list[Document]) -> None:
    """And the rules change from document to document, so that a model without one can only guess."""
    stated = set()
    checked = 0
    for document in read:
        if not document.prefix or task_of(document.question) != "rule" or dialect_of(document) == "other":
            continue
        rules = {name: (sign, int(constant)) for name, sign, constant in RULE.findall(document.prefix)}
        assert len(rules) == 3, document.prefix
        stated.add(tuple(sorted(rules.items())))
        value = int(
            re.search(r"\d+(?=\.)", re.search(r"(?:Start with|Begin at|Take the number) \d+\.", document.question)[0])[
                0
            ]
        )
        for name, n in re.findall(r"(blip|zorp|quix) (\d+)", document.question):
            sign, constant = rules[name]
            value += constant + (int(n) if sign == "+" else -int(n))
        assert extract_answer(document.response) == str(value)
        checked += 1
    assert checked > 500
    assert len(stated) > 0.9 * checked


def test_terse_is_the_equations_and_the_answer() -> None:
    problem = load_problems("story", n=3)[2]
    lines = terse(problem).splitlines()
    assert lines[-1] == problem.rationale.splitlines()[-1]
    assert len(lines) == 1 + problem.n_steps
    assert all(re.fullmatch(r"\d+ [-+*/] \d+ = \d+", line) for line in lines[:-1])


def test_stream_is_seeded() -> None:
    assert list(islice(documents(3), 20)) == list(islice(documents(3), 20))
    assert list(islice(documents(3), 20)) != list(islice(documents(4), 20))
