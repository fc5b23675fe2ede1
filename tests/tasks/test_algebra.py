"""`algebra`: every equation is solved again by trying all numbers, every chain by following its definitions."""

from __future__ import annotations

import re

import pytest


def value_of(text: str, name: str, value: int) -> int:
    """The value of a term in which products are written without a sign, such as `4 (x + 2)`."""
    text = re.sub(rf"\b{name}\b", str(value), text)
    return eval(re.sub(r"(\d) (?=[\d(])", r"\1 * ", text), {"__builtins__": {}})


def solve(question: str) -> int:
    if "Let" not in question:
        match = re.fullmatch(r"(?:Solve|Find (\w) if|What is (\w) when) (.+?) = (.+?)(?: for (\w))?[.?]", question)
        name = match[1] or match[2] or match[5]
        (solution,) = [x for x in range(100) if value_of(match[3], name, x) == value_of(match[4], name, x)]
        return solution
    values: dict[str, int] = {}
    for name, term in re.findall(r"Let (\w) = (.+?)\.", question):
        used = [other for other in values if re.search(rf"\b{other}\b", term)]
        values[name] = value_of(term, used[0], values[used[0]]) if used else int(term)
    return values[re.search(r"(?:Find|What is|Evaluate) (\w)[.?]$", question)[1]]


def test_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("algebra"):
        assert str(solve(problem.question)) == problem.answer, problem.question


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Solve 4 (x + 2) = 2 x + 18 for x.", 5),
        ("What is y when 3 y + 4 = 19?", 5),
        ("Let a = 4. Let b = 3 a. Let c = a + 9. Let d = b - 5. Find d.", 7),
    ],
)
def test_solver_by_hand(question: str, answer: int) -> None:
    assert solve(question) == answer


def test_both_kinds_and_distractors_occur(drawn) -> None:
    problems = drawn("algebra")
    chains = [problem for problem in problems if "Let" in problem.question]
    assert 0.4 < len(chains) / len(problems) < 0.6
    n_distractors = [problem.question.count("Let") - problem.n_steps - 1 for problem in chains]
    assert set(n_distractors) == {0, 1, 2}


def test_the_form_of_an_equation_follows_from_its_steps(drawn) -> None:
    n = r"\d+"
    forms = {1: rf"\w \+ {n} = {n}|{n} \w = {n}", 2: rf"{n} \w \+ {n} = {n}"}
    forms |= {3: rf"{n} \w \+ {n} = {n} \w \+ {n}", 4: rf"{n} \(\w \+ {n}\) = {n} \w \+ {n}"}
    for problem in drawn("algebra"):
        if "Let" not in problem.question:
            assert re.search(rf"(?:Solve|if|when) (?:{forms[problem.n_steps]})(?: for|\.|\?)", problem.question)
