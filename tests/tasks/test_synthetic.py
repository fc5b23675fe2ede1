"""What all synthetic tasks share: true equations, varied wording, and no shortcut from the question to the answer."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from dpc_interp.tasks.answers import extract_answer
from dpc_interp.tasks.registry import SYNTHETIC

EQUATION = re.compile(r"(\d+(?: [-+*/] \d+)+) = (\d+)$")


def value_of(expression: str) -> int:
    """The value of an arithmetic expression, which must be an integer."""
    value = eval(expression, {"__builtins__": {}})
    assert value == int(value), expression
    return int(value)


@pytest.mark.parametrize("task", SYNTHETIC)
def test_equations_are_true_and_end_at_the_answer(task: str, drawn) -> None:
    for problem in drawn(task):
        lines = problem.rationale.splitlines()
        steps = lines[:-2] if task == "choice" else lines[:-1]
        assert len(steps) == problem.n_steps, "one line a step"
        results = []
        for line in steps:
            equation = EQUATION.search(line)
            assert equation, line
            assert value_of(equation[1]) == int(equation[2]), line
            results.append(equation[2])
        assert results[-1] == (lines[-2].rpartition(" ")[2] if task == "choice" else problem.answer)
        assert extract_answer(problem.rationale) == problem.answer
        assert extract_answer("\n".join(lines[:-1])) is None, "only the last line has a marker"


@pytest.mark.parametrize("task", ["story", "rule"])
def test_each_step_continues_from_the_one_before(task: str, drawn) -> None:
    for problem in drawn(task):
        equations = [EQUATION.search(line) for line in problem.rationale.splitlines()[:-1]]
        assert [e[1].split()[0] for e in equations[1:]] == [e[2] for e in equations[:-1]]


@pytest.mark.parametrize("task", SYNTHETIC)
def test_wording_varies(task: str, drawn) -> None:
    """Apart from its numbers, a question of two or more steps is usually worded unlike any other."""
    questions = [problem.question for problem in drawn(task) if problem.n_steps > 1]
    assert len({re.sub(r"\d+", "0", question) for question in questions}) > 0.5 * len(questions)


@pytest.mark.parametrize("task", ["story", "algebra", "rule"])
def test_the_question_does_not_contain_the_answer(task: str, drawn) -> None:
    """No more often than it contains the answer of another problem with as many steps, which is chance."""
    hits, chance = [], []
    for n_steps in range(1, 5):
        problems = [problem for problem in drawn(task, 1200) if problem.n_steps == n_steps]
        numbers = [set(re.findall(r"\d+", problem.question)) for problem in problems]
        for shift in range(1, 11):
            shifted = problems[shift:] + problems[:shift]
            chance += [problem.answer in contained for problem, contained in zip(shifted, numbers, strict=True)]
        hits += [problem.answer in contained for problem, contained in zip(problems, numbers, strict=True)]
    assert pd.Series(hits).mean() < pd.Series(chance).mean() + 0.05


@pytest.mark.parametrize("task", ["story", "rule"])
def test_no_simple_guess_from_the_question_is_often_correct(task: str, drawn) -> None:
    """From two steps on, the first, last, smallest and largest number and the sum of all are rarely the answer."""
    problems = [problem for problem in drawn(task, 1200) if problem.n_steps > 1]
    numbers = [[int(n) for n in re.findall(r"\d+", problem.question)] for problem in problems]
    for guess in (lambda given: given[-1], lambda given: given[0], max, min, sum):
        hits = [str(guess(given)) == problem.answer for given, problem in zip(numbers, problems, strict=True)]
        assert pd.Series(hits).mean() < 0.12
