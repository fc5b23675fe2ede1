"""`rule`: every question is solved again with the rules, and no question states a rule."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest

from dpc_interp.tasks import rule


def solve(question: str, rules: Mapping[str, tuple[str, int]] = rule.RULES) -> int:
    value = int(re.search(r"(?:Start with|Begin at|Take the number) (\d+)\.", question)[1])
    for operator, n in re.findall(r"(blip|zorp|quix) (\d+)", question):
        sign, factor = rules[operator]
        value += factor * int(n) * (1 if sign == "+" else -1)
        assert value >= 0
    return value


def test_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("rule"):
        assert str(solve(problem.question)) == problem.answer, problem.question


def test_solver_by_hand() -> None:
    assert solve("Start with 40. Then blip 2. Apply zorp 5. Next comes quix 1. What is the result?") == 44


def test_no_question_states_a_rule(drawn) -> None:
    """A question gives every operator one operand, and neither a sign nor a factor."""
    for problem in drawn("rule"):
        assert not re.search(r"[-+*/=:]|mean", problem.question)
        applications = re.findall(r"(?:Then|Apply|Next comes) (\w+) (\d+)\.", problem.question)
        assert len(applications) == problem.n_steps
        assert {operator for operator, _ in applications} <= set(rule.OPERATORS)


def test_every_step_states_its_rule(drawn) -> None:
    for problem in drawn("rule"):
        for step in problem.rationale.splitlines()[:-1]:
            operator, sign, factor = step.split()[:3]
            assert (sign, int(factor)) == rule.RULES[operator]


@pytest.mark.parametrize("rules", [dict.fromkeys(rule.OPERATORS, ("+", 9)), dict.fromkeys(rule.OPERATORS, ("-", 2))])
def test_other_rules_give_other_answers(rules: dict[str, tuple[str, int]]) -> None:
    problem = rule.make(random.Random(3), 4, rules)
    assert solve(problem.question, rules) == int(problem.answer)
    assert solve(problem.question) != int(problem.answer)


def test_operands_reach_their_largest_value_and_results_are_not_negative() -> None:
    rng = random.Random(2)
    rationales = [rule.make(rng, 4).rationale for _ in range(300)]
    operands = [int(n) for rationale in rationales for n in re.findall(r"with (\d+):", rationale)]
    assert (min(operands), max(operands)) == (0, rule.MAX_OPERAND)
    assert all(int(n) >= 0 for rationale in rationales for n in re.findall(r"= (-?\d+)$", rationale, re.MULTILINE))
