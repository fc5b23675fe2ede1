"""`story`: every question is solved again from its words; its draws and its range are checked."""

from __future__ import annotations

import random
import re

import pytest

from dpc_interp.tasks import story


def solve(question: str) -> int:
    """Follow the events of the requested person and thing, and ignore all other sentences."""
    *sentences, last = re.split(r"(?<=[.?]) ", question)
    requested = re.fullmatch(r"(?:How many|Count the) (\w+) (?:does|are left with|of) (\w+)(?: have now)?[?.]", last)
    assert requested, last
    what, who = requested.groups()
    value = -1
    for sentence in sentences:
        if match := re.fullmatch(rf"(?:In the morning )?{who} (?:has|starts with) (\d+) {what}\.", sentence):
            value = int(match[1])
        elif match := re.fullmatch(rf"{who} (?:buys|finds|gets|picks up) (\d+) {what}(?: from \w+)?\.", sentence):
            value += int(match[1])
        elif match := re.fullmatch(rf"{who} (?:sells|loses|gives|drops) (\d+) {what}(?: to \w+)?\.", sentence):
            value -= int(match[1])
        elif match := re.fullmatch(rf"The number of {what} of {who} (doubles|triples)\.", sentence):
            value *= 2 if match[1] == "doubles" else 3
        elif re.fullmatch(rf"Then {who} gives half of the {what} to \w+\.", sentence):
            assert value % 2 == 0
            value //= 2
        else:
            assert sentence.startswith(f"{who} also has ") or not sentence.startswith((who, "The", "Then")), sentence
        assert 0 <= value <= 99 or value == -1
    return value


def test_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("story"):
        assert str(solve(problem.question)) == problem.answer, problem.question


def test_solver_by_hand() -> None:
    question = "Ann has 3 pens. Tom has 9 pens. Tom also has 5 cups. Tom buys 8 pens. Count the pens of Tom."
    assert solve(question) == 17


@pytest.mark.parametrize("n_steps", range(1, 9))
def test_quantities_stay_between_0_and_99(n_steps: int) -> None:
    """More steps than the task uses: a longer story leaves the range more easily."""
    rng = random.Random(n_steps)
    for _ in range(100):
        problem = story.make(rng, n_steps)
        equations = re.findall(r"= (\d+)$", problem.rationale, flags=re.MULTILINE)
        assert len(equations) == n_steps == problem.n_steps
        assert all(0 <= int(value) <= 99 for value in equations)


def test_every_kind_of_event_and_distractor_occurs(drawn) -> None:
    problems = drawn("story")
    verbs = {line.split()[0].rstrip(":") for problem in problems for line in problem.rationale.splitlines()[:-1]}
    assert verbs == {"buys", "finds", "gets", "picks", "sells", "loses", "gives", "drops", "doubles", "triples", "half"}
    questions = " ".join(problem.question for problem in problems)
    assert "years old." in questions
    assert " also has " in questions
