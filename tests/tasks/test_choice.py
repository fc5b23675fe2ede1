"""`choice`: every question is solved again from its words; options, letters and ranks are checked."""

from __future__ import annotations

import random
import re

import pandas as pd
import pytest
from scipy.stats import chisquare

from dpc_interp.tasks import choice


def solve(question: str) -> int:
    """The number that the question asks for, without its options."""
    if journey := re.search(r"(?:goes|makes) (\d+) km .*goes for (\d+) hours", question):
        legs = re.findall(r"Then it goes (on|back) (\d+) km", question)
        return int(journey[1]) * int(journey[2]) + sum(int(n) * (1 if way == "on" else -1) for way, n in legs)
    prices = {good: int(price) for good, price in re.findall(r"A (\w+) costs (\d+) coins", question)}
    basket = re.search(r"buys (.*?)\.", question)[1]
    cost = sum(int(n) * prices[good] for n, good in re.findall(r"(\d+) (\w+)s\b", basket))
    if " left" in question:
        return int(re.search(r"has (\d+) coins", question)[1]) - cost
    return cost


def options_of(question: str) -> dict[str, int]:
    return {letter: int(n) for letter, n in re.findall(r"([A-E]) (\d+)\b", question.rpartition("?")[2])}


def test_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("choice"):
        options = options_of(problem.question)
        assert list(options) == list("ABCDE")
        assert len(set(options.values())) == 5, "only one option is correct"
        assert options[problem.answer] == solve(problem.question), problem.question


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("A pen costs 3 coins. A cup costs 5 coins. Tom buys 2 pens and 4 cups. How many coins does Tom pay?", 26),
        ("Tom has 30 coins. A pen costs 3 coins. Tom buys 2 pens. How many coins are left?", 24),
        ("A bus goes 5 km in an hour. It goes for 2 hours. Then it goes on 7 km. Then it goes back 3 km. How far?", 14),
    ],
)
def test_solver_by_hand(question: str, number: int) -> None:
    assert solve(question) == number


def test_the_rationale_copies_the_options_up_to_the_correct_one(drawn) -> None:
    for problem in drawn("choice"):
        *steps, options, _ = problem.rationale.splitlines()
        assert problem.question.rpartition("? ")[2].startswith(options)
        assert options.endswith(f"{problem.answer} {steps[-1].rpartition(' = ')[2]}")


def test_letters_and_ranks_of_the_correct_option_are_uniform(drawn) -> None:
    letters, ranks = [], []
    for problem in drawn("choice", 1200):
        options = options_of(problem.question)
        letters.append(problem.answer)
        ranks.append(sorted(options.values()).index(options[problem.answer]))
    assert chisquare(pd.Series(letters).value_counts()).pvalue > 1e-3
    # a small number has few smaller options, so low ranks are a little more frequent
    assert pd.Series(ranks).value_counts(normalize=True).between(0.15, 0.26).all()


def test_options_are_close_and_not_negative() -> None:
    rng = random.Random(5)
    for k in range(400):
        problem = choice.make(rng, 1 + k % 4)
        options = options_of(problem.question)
        correct = options[problem.answer]
        assert all(0 <= option <= correct + 10 and option >= correct - 10 for option in options.values())
