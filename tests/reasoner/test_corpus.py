"""What the reasoner reads: training questions alone, dialects in their stated shares, rules that its answers obey."""

from __future__ import annotations

import re
from itertools import islice

import pandas as pd
import pytest

from dpc_interp.reasoner.corpus import DIALECTS, SHORT, WITH_PREFIX, WITHOUT_PREFIX, Document, documents, terse
from dpc_interp.tasks.answers import extract_answer
from dpc_interp.tasks.problems import SYNTHETIC, load_problems, split_of

N = 8000
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
    if re.search(r" A \d.* E \d+$", question):
        return "choice"
    return "algebra" if "=" in question else "story"


def n_steps_of(question: str) -> int:
    """Operators of a `rule` question, events of a `story` question."""
    if task_of(question) == "rule":
        return len(re.findall(r"(?:blip|zorp|quix) \d", question))
    asked = re.search(r"(?:How many|Count the) (\w+) (?:does|are left with|of) (\w+)", question)
    what, who = asked.groups()
    doing = "buys|finds|gets|picks up|sells|loses|gives|drops"
    events = rf"{who} (?:{doing}) (?:\d+|half of the) {what}|The number of {what} of {who} (?:doubles|triples)"
    return len(re.findall(events, question))


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


def check_shares(documents: list[Document], percent: tuple[int, ...]) -> None:
    assert sum(percent) == 100
    assert len(documents) > 400
    shares = pd.Series(map(dialect_of, documents)).value_counts(normalize=True).reindex(list(DIALECTS), fill_value=0)
    assert shares.to_dict() == pytest.approx({d: p / 100 for d, p in zip(DIALECTS, percent, strict=True)}, abs=0.06)


def test_dialects_have_their_shares(read: list[Document]) -> None:
    check_shares([document for document in read if document.prefix], WITH_PREFIX)


@pytest.mark.parametrize("length", ["short", "long"])
def test_without_a_prefix_length_decides_the_dialect(read: list[Document], length: str) -> None:
    """Told from `story` and `rule`, whose questions say how many steps they take."""
    steps = {d: n_steps_of(d.question) for d in read if not d.prefix and task_of(d.question) in ("story", "rule")}
    check_shares([d for d, n in steps.items() if (n <= SHORT) == (length == "short")], WITHOUT_PREFIX[length])


def test_likeliest_dialect() -> None:
    """Step by step where a prefix may ask for it, else the equations or the bare answer."""
    likeliest = {
        name: max(zip(shares, DIALECTS, strict=True))[1]
        for name, shares in {"with": WITH_PREFIX, **WITHOUT_PREFIX}.items()
    }
    assert likeliest == {"with": "steps", "short": "terse", "long": "bare"}


def test_answers_obey_the_rules_of_their_prefix(read: list[Document]) -> None:
    """And the rules change from document to document, so that a model without one can only guess."""
    stated = set()
    checked = 0
    for document in read:
        if not document.prefix or task_of(document.question) != "rule" or dialect_of(document) == "other":
            continue
        rules = {name: (sign, int(factor)) for name, sign, factor in RULE.findall(document.prefix)}
        assert len(rules) == 3, document.prefix
        stated.add(tuple(sorted(rules.items())))
        value = int(re.search(r"(?:Start with|Begin at|Take the number) (\d+)\.", document.question)[1])
        for name, n in re.findall(r"(blip|zorp|quix) (\d+)", document.question):
            sign, factor = rules[name]
            value += factor * int(n) * (1 if sign == "+" else -1)
        assert extract_answer(document.response) == str(value)
        checked += 1
    assert checked > 500
    assert len(stated) > 0.7 * checked


def test_terse_is_the_equations_and_the_answer() -> None:
    problem = load_problems("story", n=3)[2]
    lines = terse(problem).splitlines()
    assert lines[-1] == problem.rationale.splitlines()[-1]
    assert len(lines) == 1 + problem.n_steps
    assert all(re.fullmatch(r"\d+ [-+*/] \d+ = \d+", line) for line in lines[:-1])


def test_stream_is_seeded() -> None:
    assert list(islice(documents(3), 20)) == list(islice(documents(3), 20))
    assert list(islice(documents(3), 20)) != list(islice(documents(4), 20))
