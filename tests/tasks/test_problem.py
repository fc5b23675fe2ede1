"""Problems, the hash that decides their split, and the drawing of distinct problems."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Problem
from dpc_interp.tasks import problem as problem_module
from dpc_interp.tasks.problem import SPLITS, check_distinct, draw_distinct, question_hash, split_of, take
from dpc_interp.tasks.word_problems import make_story

SUM = Problem("sums", "What is 9 + 8?", "9 + 8 = 17\n#### 17", "17", 1, "sums-0")


def numbered(k: int) -> Problem:
    return replace(SUM, question=f"What is {k} + 8?", id=f"sums-{k}")


@pytest.fixture
def one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is a test question."""
    monkeypatch.setattr(problem_module, "split_of", lambda question: "test")


def test_check_distinct_names_the_repeated_id() -> None:
    check_distinct([numbered(1), numbered(2)])
    with pytest.raises(DPCInterpError, match="two problems have the id 'sums-1'"):
        check_distinct([numbered(1), numbered(2), numbered(1)])


@pytest.mark.parametrize(
    ("question", "digest"),
    [("", "e4a6a0577479b2b4"), ("How many apples?", "89433346a45c91f9"), ("Wie viele – ü?", "ea88366468c4202c")],
)
def test_hash_is_blake2b(question: str, digest: str) -> None:
    """The digests are those of `printf '...' | b2sum -l 64`."""
    assert f"{question_hash(question):016x}" == digest


@pytest.mark.parametrize(
    ("value", "split"),
    [
        (0, "train"),
        (79, "train"),
        (80, "validation"),
        (89, "validation"),
        (90, "test"),
        (99, "test"),
        (100, "train"),
        (2**64 - 1, "train"),  # 2**64 - 1 ends in 15
    ],
)
def test_split_borders(monkeypatch: pytest.MonkeyPatch, value: int, split: str) -> None:
    monkeypatch.setattr(problem_module, "question_hash", lambda question: value)
    assert split_of("any question") == split


def test_splits_have_their_shares() -> None:
    rng = random.Random(1)
    questions = {make_story(rng, 1 + k % 4).question for k in range(3000)}
    shares = pd.Series([split_of(question) for question in questions]).value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({split: percent / 100 for split, percent in SPLITS.items()}, abs=0.025)


def test_draw_rejects_repeated_and_missing_problems(one_split: None) -> None:
    draws = iter([numbered(1), None, numbered(1), numbered(2), None, numbered(1), numbered(3), numbered(4)])
    accepted_before = []

    def draw(n_accepted: int) -> Problem | None:
        accepted_before.append(n_accepted)
        return next(draws)

    assert draw_distinct(draw, "sums", "test", 3) == [numbered(1), numbered(2), numbered(3)]
    assert accepted_before == [0, 1, 1, 1, 2, 2, 2], "the difficulty of a draw follows the number of accepted problems"


@pytest.mark.parametrize("split", SPLITS)
def test_draw_rejects_other_splits(split: str) -> None:
    counter = iter(range(1000))
    problems = draw_distinct(lambda _: numbered(next(counter)), "sums", split, 10)
    expected = [numbered(k) for k in range(1000) if split_of(numbered(k).question) == split]
    assert problems == expected[:10]


def draw_from(*values: int) -> Callable[[int], Problem]:
    draws = iter(values)
    return lambda _: numbered(next(draws))


def test_draw_stops_after_many_rejections_in_a_row(one_split: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_module, "MAX_REJECTIONS", 3)
    assert len(draw_distinct(draw_from(1, 1, 1, 2, 2, 2, 3), "sums", "test", 3)) == 3, "rejections are in a row"
    with pytest.raises(DPCInterpError, match="only 2 distinct test problems of sums were found; request fewer"):
        draw_distinct(draw_from(1, 2, 2, 1, 2, 3), "sums", "test", 3)


def steps_1_to_4() -> Iterator[Problem]:
    for k in range(1, 5):
        yield Problem("mine", f"{k}?", "", "1", k, str(k))


def test_take_reads_no_further_than_needed() -> None:
    problems = steps_1_to_4()
    assert [problem.n_steps for problem in take(problems, 2, None, "rows")] == [1, 2]
    assert next(problems).n_steps == 3


def test_take_leaves_out_harder_problems() -> None:
    assert [problem.n_steps for problem in take(reversed([*steps_1_to_4()]), None, 2, "rows")] == [2, 1]
    with pytest.raises(DPCInterpError, match="rows has no problem of at most 1 steps; raise max_steps"):
        take([*steps_1_to_4()][1:], None, 1, "rows")
    with pytest.raises(DPCInterpError, match="max_steps is 0; allow at least 1 step"):
        take(steps_1_to_4(), None, 0, "rows")
