"""Training documents: training questions only, dialects in their stated shares, answers that obey the stated rules."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import islice

import pandas as pd
import pytest

from dpc_interp.bundled.corpus import DIALECTS, SHORT, WITH_PREFIX, WITHOUT_PREFIX, Document, documents, equations_only
from dpc_interp.tasks.answers import extract_answer
from dpc_interp.tasks.problem import split_of
from dpc_interp.tasks.registry import SYNTHETIC, load_problems

N = 8000
RULE = re.compile(r"(blip|zorp|quix) ([+-]) (\d+)")


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    return list(islice(documents(11), N))


def dialect_of(document: Document) -> str:
    """Inferred from the text: `other` has no answer, `bare` is one line, and only `steps` has words before a colon."""
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
    objects, person = asked.groups()
    verbs = "buys|finds|gets|picks up|sells|loses|gives|drops"
    events = (
        rf"{person} (?:{verbs}) (?:\d+|half of the) {objects}|The number of {objects} of {person} (?:doubles|triples)"
    )
    return len(re.findall(events, question))


def test_all_questions_are_of_the_training_split(sample: list[Document]) -> None:
    assert {split_of(document.question) for document in sample} == {"train"}
    other = [document.response for document in sample if dialect_of(document) == "other"]
    assert len(other) > 300
    assert {split_of(response) for response in other} == {"train"}, "repeated questions too"


def test_no_validation_or_test_question_occurs_anywhere(sample: list[Document]) -> None:
    held_out = {
        p.question for task in SYNTHETIC for split in ("validation", "test") for p in load_problems(task, split, n=200)
    }
    assert not held_out & {text for document in sample for text in (document.question, document.response)}


def test_tasks_come_in_equal_shares(sample: list[Document]) -> None:
    shares = pd.Series([task_of(document.question) for document in sample]).value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx(dict.fromkeys(SYNTHETIC, 0.25), abs=0.035)


def check_shares(documents: list[Document], percent: tuple[int, ...]) -> None:
    assert sum(percent) == 100
    assert len(documents) > 400
    shares = pd.Series(map(dialect_of, documents)).value_counts(normalize=True).reindex(list(DIALECTS), fill_value=0)
    assert shares.to_dict() == pytest.approx({d: p / 100 for d, p in zip(DIALECTS, percent, strict=True)}, abs=0.06)


def test_dialects_have_their_shares(sample: list[Document]) -> None:
    check_shares([document for document in sample if document.prefix], WITH_PREFIX)


@pytest.mark.parametrize("length", ["short", "long"])
def test_without_a_prefix_length_decides_the_dialect(sample: list[Document], length: str) -> None:
    """On `story` and `rule`, whose questions show their number of steps."""
    steps = {d: n_steps_of(d.question) for d in sample if not d.prefix and task_of(d.question) in ("story", "rule")}
    check_shares([d for d, n in steps.items() if (n <= SHORT) == (length == "short")], WITHOUT_PREFIX[length])


def test_most_likely_dialect() -> None:
    """Step by step with a prefix; without one the equations or the bare answer."""
    most_likely = {
        name: max(zip(shares, DIALECTS, strict=True))[1]
        for name, shares in {"with": WITH_PREFIX, **WITHOUT_PREFIX}.items()
    }
    assert most_likely == {"with": "steps", "short": "terse", "long": "bare"}


def test_answers_obey_the_rules_of_their_prefix(sample: list[Document]) -> None:
    """The rules change from document to document, so that a model without a prefix can only guess."""
    stated = set()
    checked = 0
    for document in sample:
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


def test_equations_only_drops_the_words() -> None:
    problem = load_problems("story", n=3)[2]
    lines = equations_only(problem).splitlines()
    assert lines[-1] == problem.rationale.splitlines()[-1]
    assert len(lines) == 1 + problem.n_steps
    assert all(re.fullmatch(r"\d+ [-+*/] \d+ = \d+", line) for line in lines[:-1])


def test_stream_is_seeded() -> None:
    assert list(islice(documents(3), 20)) == list(islice(documents(3), 20))
    assert list(islice(documents(3), 20)) != list(islice(documents(4), 20))


def test_documents_of_a_seed_never_change() -> None:
    """The shipped tokenizer and weights were made from these documents."""
    digest = sha256()
    for document in islice(documents(0), 500):
        digest.update(repr((document.prefix, document.question, document.response)).encode())
    assert digest.hexdigest() == "ff86fb5c1dd9970ad64da986cb3875942a65daa38873351b8f713ed659ba9b39"
