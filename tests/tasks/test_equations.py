"""`algebra` and `rule`: every question is solved again, by trying all numbers and by following definitions or rules."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest

from dpc_interp.tasks.equations import MAX_OPERAND, OPERATORS, RULES, make_rule


def value_of(text: str, name: str, value: int) -> int:
    """The value of a term in which products are written without a sign, such as `4 (x + 2)`."""
    text = re.sub(rf"\b{name}\b", str(value), text)
    return eval(re.sub(r"(\d) (?=[\d(])", r"\1 * ", text), {"__builtins__": {}})


def solve_algebra(question: str) -> int:
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


def test_algebra_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("algebra"):
        assert str(solve_algebra(problem.question)) == problem.answer, problem.question


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Solve 4 (x + 2) = 2 x + 18 for x.", 5),
        ("What is y when 3 y + 4 = 19?", 5),
        ("Let a = 4. Let b = 3 a. Let c = a + 9. Let d = b - 5. Find d.", 7),
    ],
)
def test_algebra_solver_by_hand(question: str, answer: int) -> None:
    assert solve_algebra(question) == answer


def test_algebra_both_kinds_and_distractors_occur(drawn) -> None:
    problems = drawn("algebra")
    chains = [problem for problem in problems if "Let" in problem.question]
    assert 0.4 < len(chains) / len(problems) < 0.6
    n_distractors = [problem.question.count("Let") - problem.n_steps - 1 for problem in chains]
    assert set(n_distractors) == {0, 1, 2}


def test_algebra_the_form_of_an_equation_follows_from_its_steps(drawn) -> None:
    n = r"\d+"
    forms = {1: rf"\w \+ {n} = {n}|{n} \w = {n}", 2: rf"{n} \w \+ {n} = {n}"}
    forms |= {3: rf"{n} \w \+ {n} = {n} \w \+ {n}", 4: rf"{n} \(\w \+ {n}\) = {n} \w \+ {n}"}
    for problem in drawn("algebra"):
        if "Let" not in problem.question:
            assert re.search(rf"(?:Solve|if|when) (?:{forms[problem.n_steps]})(?: for|\.|\?)", problem.question)


def solve_rule(question: str, rules: Mapping[str, tuple[str, int]] = RULES) -> int:
    value = int(re.search(r"(?:Start with|Begin at|Take the number) (\d+)\.", question)[1])
    for operator, n in re.findall(r"(blip|zorp|quix) (\d+)", question):
        sign, factor = rules[operator]
        value += factor * int(n) * (1 if sign == "+" else -1)
        assert value >= 0
    return value


def test_rule_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("rule"):
        assert str(solve_rule(problem.question)) == problem.answer, problem.question


def test_rule_solver_by_hand() -> None:
    assert solve_rule("Start with 40. Then blip 2. Apply zorp 5. Next comes quix 1. What is the result?") == 44


def test_rule_no_question_states_a_rule(drawn) -> None:
    """A question gives every operator one operand, and neither a sign nor a factor."""
    for problem in drawn("rule"):
        assert not re.search(r"[-+*/=:]|mean", problem.question)
        applications = re.findall(r"(?:Then|Apply|Next comes) (\w+) (\d+)\.", problem.question)
        assert len(applications) == problem.n_steps
        assert {operator for operator, _ in applications} <= set(OPERATORS)


def test_rule_every_step_states_its_rule(drawn) -> None:
    for problem in drawn("rule"):
        for step in problem.rationale.splitlines()[:-1]:
            operator, sign, factor = step.split()[:3]
            assert (sign, int(factor)) == RULES[operator]


@pytest.mark.parametrize("rules", [dict.fromkeys(OPERATORS, ("+", 9)), dict.fromkeys(OPERATORS, ("-", 2))])
def test_rule_other_rules_give_other_answers(rules: dict[str, tuple[str, int]]) -> None:
    problem = make_rule(random.Random(3), 4, rules)
    assert solve_rule(problem.question, rules) == int(problem.answer)
    assert solve_rule(problem.question) != int(problem.answer)


def test_rule_operands_reach_their_largest_value_and_results_are_not_negative() -> None:
    rng = random.Random(2)
    rationales = [make_rule(rng, 4).rationale for _ in range(300)]
    operands = [int(n) for rationale in rationales for n in re.findall(r"with (\d+):", rationale)]
    assert (min(operands), max(operands)) == (0, MAX_OPERAND)
    assert all(int(n) >= 0 for rationale in rationales for n in re.findall(r"= (-?\d+)$", rationale, re.MULTILINE))
