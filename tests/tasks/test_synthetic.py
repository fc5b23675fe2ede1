"""The synthetic tasks say what is true: each question is solved again from its words, each line of its rationale
checked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache

import pandas as pd
import pytest
from scipy.stats import chisquare

from dpc_interp import Problem, load_problems
from dpc_interp.tasks import algebra, choice, rule, story
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.problems import SPLITS, SYNTHETIC, split_of

N = 400
EQUATION = re.compile(r"(\d+(?: [-+*/] \d+)+) = (\d+)$")


@cache
def drawn(task: str, n: int = N) -> list[Problem]:
    return load_problems(task, n=n, seed=7)


def value_of(expression: str) -> int:
    """Products first. Divisions must come out whole."""
    value = eval(expression, {"__builtins__": {}})
    assert value == int(value), expression
    return int(value)


def sentences_of(question: str) -> list[str]:
    return re.split(r"(?<=[.?]) ", question)


def solve_story(question: str) -> str:
    *told, ask = sentences_of(question)
    asked = re.fullmatch(r"(?:How many|Count the) (\w+) (?:does|are left with|of) (\w+)(?: have now)?[?.]", ask)
    assert asked, ask
    what, who = asked.groups()
    value = -1
    for sentence in told:
        if found := re.fullmatch(rf"(?:In the morning )?{who} (?:has|starts with) (\d+) {what}\.", sentence):
            value = int(found[1])
        elif found := re.fullmatch(rf"{who} (?:buys|finds|gets|picks up) (\d+) {what}(?: from \w+)?\.", sentence):
            value += int(found[1])
        elif found := re.fullmatch(rf"{who} (?:sells|loses|gives|drops) (\d+) {what}(?: to \w+)?\.", sentence):
            value -= int(found[1])
        elif found := re.fullmatch(rf"The number of {what} of {who} (doubles|triples)\.", sentence):
            value *= 2 if found[1] == "doubles" else 3
        elif re.fullmatch(rf"Then {who} gives half of the {what} to \w+\.", sentence):
            assert value % 2 == 0
            value //= 2
        else:
            assert sentence.startswith(f"{who} also has ") or not sentence.startswith((who, "The", "Then")), sentence
        assert 0 <= value <= 99 or value == -1
    return str(value)


def number_of_choice(question: str) -> int:
    if found := re.search(r"(?:goes|makes) (\d+) km .*goes for (\d+) hours", question):
        legs = re.findall(r"Then it goes (on|back) (\d+) km", question)
        return int(found[1]) * int(found[2]) + sum(int(n) * (1 if way == "on" else -1) for way, n in legs)
    prices = {good: int(price) for good, price in re.findall(r"A (\w+) costs (\d+) coins", question)}
    basket = re.search(r"buys (.*?)\.", question)[1]
    cost = sum(int(n) * prices[good] for n, good in re.findall(r"(\d+) (\w+)s\b", basket))
    if " left" in question:
        return int(re.search(r"has (\d+) coins", question)[1]) - cost
    return cost


def options_of(question: str) -> dict[str, int]:
    return {letter: int(n) for letter, n in re.findall(r"([A-E]) (\d+)\b", question.rpartition("?")[2])}


def solve_choice(question: str) -> str:
    options = options_of(question)
    assert list(options) == list("ABCDE")
    assert len(set(options.values())) == 5, "one option alone is right"
    (letter,) = [letter for letter, option in options.items() if option == number_of_choice(question)]
    return letter


def solve_algebra(question: str) -> str:
    """By trying every number, or by following the definitions."""

    def side(text: str, name: str, value: int) -> int:
        text = re.sub(rf"\b{name}\b", str(value), text)
        return eval(re.sub(r"(\d) (?=[\d(])", r"\1 * ", text), {"__builtins__": {}})

    if "Let" not in question:
        found = re.fullmatch(r"(?:Solve|Find (\w) if|What is (\w) when) (.+?) = (.+?)(?: for (\w))?[.?]", question)
        name = found[1] or found[2] or found[5]
        (value,) = [x for x in range(100) if side(found[3], name, x) == side(found[4], name, x)]
        return str(value)
    values: dict[str, int] = {}
    for name, term in re.findall(r"Let (\w) = (.+?)\.", question):
        used = [other for other in values if re.search(rf"\b{other}\b", term)]
        values[name] = side(term, used[0], values[used[0]]) if used else int(term)
    return str(values[re.search(r"(?:Find|What is|Evaluate) (\w)[.?]$", question)[1]])


def solve_rule(question: str) -> str:
    value = int(re.search(r"(?:Start with|Begin at|Take the number) (\d+)\.", question)[1])
    for name, n in re.findall(r"(blip|zorp|quix) (\d+)", question):
        sign, factor = rule.RULES[name]
        value += factor * int(n) * (1 if sign == "+" else -1)
        assert value >= 0
    return str(value)


SOLVE: dict[str, Callable[[str], str]] = {
    "story": solve_story,
    "choice": solve_choice,
    "algebra": solve_algebra,
    "rule": solve_rule,
}


@pytest.mark.parametrize("task", SYNTHETIC)
def test_answer_follows_from_the_question(task: str) -> None:
    for problem in drawn(task):
        assert SOLVE[task](problem.question) == problem.answer, problem.question


@pytest.mark.parametrize("task", SYNTHETIC)
def test_equations_are_true_and_end_at_the_answer(task: str) -> None:
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
        if task == "choice":
            assert problem.question.rpartition("? ")[2].startswith(lines[-2]), "the options in order"
            assert lines[-2].endswith(f"{problem.answer} {results[-1]}"), "up to the right one"
            assert options_of(problem.question)[problem.answer] == int(results[-1])
        else:
            assert results[-1] == problem.answer
        assert extract_answer(problem.rationale) == problem.answer
        assert extract_answer("\n".join(lines[:-1])) is None, "the answer is marked once"


@pytest.mark.parametrize("task", ["story", "rule"])
def test_each_step_goes_on_from_the_one_before(task: str) -> None:
    for problem in drawn(task):
        equations = [EQUATION.search(line) for line in problem.rationale.splitlines()[:-1]]
        assert [e[1].split()[0] for e in equations[1:]] == [e[2] for e in equations[:-1]]


def test_a_rule_stands_in_no_question() -> None:
    """Nothing but an operator and one operand: neither a sign nor a factor beside it."""
    for problem in drawn("rule"):
        assert not re.search(r"[-+*/=:]|mean", problem.question)
        steps = re.findall(r"(?:Then|Apply|Next comes) (\w+) (\d+)\.", problem.question)
        assert len(steps) == problem.n_steps
    other = rule.make(random.Random(3), 4, dict.fromkeys(rule.OPERATORS, ("+", 9)))
    assert solve_rule(other.question) != other.answer, "another document's rules give another answer to such a question"


@pytest.mark.parametrize("module", [story, choice, algebra, rule])
def test_wording_varies(module) -> None:
    """Numbers left out, most questions are still worded as no other."""
    problems = drawn(module.__name__.rpartition(".")[2])
    shapes = {re.sub(r"\d+", "0", problem.question) for problem in problems if problem.n_steps > 1}
    assert len(shapes) > 0.5 * sum(problem.n_steps > 1 for problem in problems)


@pytest.mark.parametrize("task", ["story", "algebra", "rule"])
def test_the_answer_does_not_stand_in_the_question(task: str) -> None:
    """Not more often than another problem's answer, of as many steps, does by chance."""
    hits, chance = [], []
    for n_steps in range(1, 5):
        problems = [problem for problem in drawn(task, 1200) if problem.n_steps == n_steps]
        numbers = [set(re.findall(r"\d+", problem.question)) for problem in problems]
        for shift in range(1, 11):
            chance += [p.answer in given for p, given in zip(problems[shift:] + problems[:shift], numbers, strict=True)]
        hits += [p.answer in given for p, given in zip(problems, numbers, strict=True)]
    assert pd.Series(hits).mean() < pd.Series(chance).mean() + 0.05


@pytest.mark.parametrize("task", ["story", "rule"])
def test_no_place_in_the_question_gives_the_answer(task: str) -> None:
    """Neither the last number nor the largest is right more than now and then, from two steps on."""
    problems = [problem for problem in drawn(task, 1200) if problem.n_steps > 1]
    numbers = [[int(n) for n in re.findall(r"\d+", problem.question)] for problem in problems]
    for guess in (lambda given: given[-1], lambda given: given[0], max, min, sum):
        right = [str(guess(given)) == problem.answer for given, problem in zip(numbers, problems, strict=True)]
        assert pd.Series(right).mean() < 0.12


def test_letters_and_ranks_of_the_right_option_are_uniform() -> None:
    letters, ranks = [], []
    for problem in drawn("choice", 1200):
        options = options_of(problem.question)
        letters.append(problem.answer)
        ranks.append(sorted(options.values()).index(options[problem.answer]))
    assert chisquare(pd.Series(letters).value_counts()).pvalue > 1e-3
    # small numbers have few options below them, so that ranks lean a little to the low end
    assert pd.Series(ranks).value_counts(normalize=True).between(0.15, 0.26).all()


@pytest.mark.parametrize("task", SYNTHETIC)
def test_splits_share_no_problem(task: str) -> None:
    by_split = {
        split: {problem.question for seed in range(3) for problem in load_problems(task, split, n=80, seed=seed)}
        for split in SPLITS
    }
    for split, questions in by_split.items():
        assert {split_of(question) for question in questions} == {split}
        others = set().union(*(by_split[other] for other in SPLITS if other != split))
        assert not questions & others


def test_splits_have_their_shares() -> None:
    rng = random.Random(1)
    questions = {story.make(rng, 1 + k % 4).question for k in range(3000)}
    shares = pd.Series([split_of(question) for question in questions]).value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.025)


@pytest.mark.parametrize("task", SYNTHETIC)
def test_seed_decides_and_a_shorter_draw_begins_a_longer(task: str) -> None:
    long = load_problems(task, n=60, seed=2, max_steps=3)
    assert load_problems(task, n=60, seed=2, max_steps=3) == long
    assert load_problems(task, n=17, seed=2, max_steps=3) == long[:17]
    assert load_problems(task, n=60, seed=3, max_steps=3) != long
    assert len({problem.id for problem in long}) == len({problem.question for problem in long}) == 60
    assert pd.Series([problem.n_steps for problem in long]).value_counts().to_dict() == {1: 20, 2: 20, 3: 20}
    assert {problem.task for problem in long} == {task}
    assert all(problem.id.startswith(f"{task}-") for problem in long)
    assert not is_correct(None, long[0].answer)
