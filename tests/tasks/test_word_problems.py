"""`story` and `choice`: every question is solved again from its words; range, options and letters are checked."""

from __future__ import annotations

import random
import re

import pandas as pd
import pytest
from scipy.stats import chisquare

from dpc_interp.tasks.word_problems import make_choice, make_story


def solve_story(question: str) -> int:
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


def test_story_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("story"):
        assert str(solve_story(problem.question)) == problem.answer, problem.question


def test_story_solver_by_hand() -> None:
    question = "Ann has 3 pens. Tom has 9 pens. Tom also has 5 cups. Tom buys 8 pens. Count the pens of Tom."
    assert solve_story(question) == 17


@pytest.mark.parametrize("n_steps", range(1, 9))
def test_story_quantities_stay_between_0_and_99(n_steps: int) -> None:
    """More steps than the task uses: a longer story leaves the range more easily."""
    rng = random.Random(n_steps)
    for _ in range(100):
        problem = make_story(rng, n_steps)
        equations = re.findall(r"= (\d+)$", problem.rationale, flags=re.MULTILINE)
        assert len(equations) == n_steps == problem.n_steps
        assert all(0 <= int(value) <= 99 for value in equations)


def test_story_every_kind_of_event_and_distractor_occurs(drawn) -> None:
    problems = drawn("story")
    verbs = {line.split()[0].rstrip(":") for problem in problems for line in problem.rationale.splitlines()[:-1]}
    assert verbs == {"buys", "finds", "gets", "picks", "sells", "loses", "gives", "drops", "doubles", "triples", "half"}
    questions = " ".join(problem.question for problem in problems)
    assert "years old." in questions
    assert " also has " in questions


def solve_choice(question: str) -> int:
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


def test_choice_answers_follow_from_the_questions(drawn) -> None:
    for problem in drawn("choice"):
        options = options_of(problem.question)
        assert list(options) == list("ABCDE")
        assert len(set(options.values())) == 5, "only one option is correct"
        assert options[problem.answer] == solve_choice(problem.question), problem.question


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("A pen costs 3 coins. A cup costs 5 coins. Tom buys 2 pens and 4 cups. How many coins does Tom pay?", 26),
        ("Tom has 30 coins. A pen costs 3 coins. Tom buys 2 pens. How many coins are left?", 24),
        ("A bus goes 5 km in an hour. It goes for 2 hours. Then it goes on 7 km. Then it goes back 3 km. How far?", 14),
    ],
)
def test_choice_solver_by_hand(question: str, number: int) -> None:
    assert solve_choice(question) == number


def test_choice_the_rationale_copies_the_options_up_to_the_correct_one(drawn) -> None:
    for problem in drawn("choice"):
        *steps, options, _ = problem.rationale.splitlines()
        assert problem.question.rpartition("? ")[2].startswith(options)
        assert options.endswith(f"{problem.answer} {steps[-1].rpartition(' = ')[2]}")


def test_choice_letters_and_ranks_of_the_correct_option_are_uniform(drawn) -> None:
    letters, ranks = [], []
    for problem in drawn("choice", 1200):
        options = options_of(problem.question)
        letters.append(problem.answer)
        ranks.append(sorted(options.values()).index(options[problem.answer]))
    assert chisquare(pd.Series(letters).value_counts()).pvalue > 1e-3
    # a small number has few smaller options, so low ranks are a little more frequent
    assert pd.Series(ranks).value_counts(normalize=True).between(0.15, 0.26).all()


def test_choice_options_are_close_and_not_negative() -> None:
    rng = random.Random(5)
    for k in range(400):
        problem = make_choice(rng, 1 + k % 4)
        options = options_of(problem.question)
        correct = options[problem.answer]
        assert all(0 <= option <= correct + 10 and option >= correct - 10 for option in options.values())
