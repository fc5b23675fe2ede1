"""Validation problems of a task that has none are its own, and are not reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, Problem, ProblemSample
from dpc_interp.evaluation.held_out import HELD_OUT, hold_out_validation


def own(problems: list[Problem]) -> list[Problem]:
    """The problems as a task that has no validation split."""
    return [replace(problem, task="mine", id=f"mine-{k}") for k, problem in enumerate(problems)]


def test_held_out_problems_are_those_of_the_smallest_hashes(problems: list[Problem]) -> None:
    mine = own(problems)
    (test,), sample = hold_out_validation([mine], ProblemSample())
    held = sample.validation["mine"]
    assert len(held) == round(HELD_OUT * len(mine))
    assert {p.id for p in test} | {p.id for p in held} == {p.id for p in mine}
    assert not {p.id for p in test} & {p.id for p in held}
    _, other = hold_out_validation([mine[::-1]], ProblemSample())
    assert other.validation["mine"] == held, "whatever the order"
    given = ProblemSample(validation={"mine": mine[:2]})
    assert hold_out_validation([mine[2:]], given) == ([mine[2:]], given)
    assert hold_out_validation("story", ProblemSample()) == (["story"], ProblemSample())


def test_problems_of_one_question_are_all_held_out_or_none() -> None:
    rows = [{"question": f"{k // 4} + {k // 4}?", "answer": k, "id": str(k)} for k in range(20)]
    (test,), sample = hold_out_validation(rows, ProblemSample())
    held = sample.validation["mine"]
    assert (len(test), len(held)) == (12, 8), "not 6, in the middle of a question"
    assert not {p.question for p in test} & {p.question for p in held}
    same = [row | {"question": "1 + 1?"} for row in rows]
    with pytest.raises(DPCInterpError, match="all problems of 'mine' ask the same question; give others for valid"):
        hold_out_validation(same, ProblemSample())


@pytest.mark.parametrize("stem", ["mine", "story"])
def test_a_file_calibrates_on_its_own_problems(problems: list[Problem], tmp_path: Path, stem: str) -> None:
    """Also where it has the name of a task, whose problems are others."""
    file = tmp_path / f"{stem}.jsonl"
    file.write_text("\n".join(json.dumps({"question": p.question, "answer": p.answer}) for p in problems[:20]))
    for entry in (file, str(file)):
        (test,), sample = hold_out_validation(entry, ProblemSample(n=5, n_validation=4))
        (held,) = sample.validation.values()
        assert (len(test), len(held)) == (5, 4)
        questions = {p.question for p in (*test, *held)}
        assert len(questions) == 9
        assert questions <= {p.question for p in problems[:20]}
