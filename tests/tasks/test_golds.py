"""Gold answers and rationale steps out of whole solutions, and what is no answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.generation.steps import step_ends
from dpc_interp.tasks.answers import extract_answer, extract_gold, is_correct
from dpc_interp.tasks.golds import answer_line, body_of, check_gold, is_solution, split_steps
from dpc_interp.tasks.rows import read_rows

DATA = os.environ.get("DPC_INTERP_DATA")
N_AQUA_STATED = 441
"""Of 508 published rationales of AQuA, those whose last marker names the correct letter; 64 others have no marker."""
GSM8K_STEPS = "Tom has 9+8 = <<9+8=17>>17 pens."


@pytest.mark.parametrize(
    ("answer", "gold", "rationale"),
    [
        (f"{GSM8K_STEPS}\n#### 17", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        (f"{GSM8K_STEPS} #### 17", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        (f"{GSM8K_STEPS}\n####17", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        (f"{GSM8K_STEPS}\n####\t1,017", "1017", "Tom has 9+8 = 17 pens.\n#### 1017"),
        (f"{GSM8K_STEPS}\n####\n17", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        (f"{GSM8K_STEPS}\r\n#### **17**\r\n", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        (f"{GSM8K_STEPS}\n#### 17\nThe answer is: 17", "17", "Tom has 9+8 = 17 pens.\n#### 17"),
        ("#### Step 1\n9 + 8 = 17\n#### 17", "17", "Step 1\n9 + 8 = 17\n#### 17"),
        ("9 + 8 = 17.\nThe answer is 17.", "17", "9 + 8 = 17.\n#### 17"),
        ("9 + 8 = 17.\n**Final answer:** 17", "17", "9 + 8 = 17.\n#### 17"),
        ("Add. So $\\boxed{17}$.", "17", "Add.\nSo ${17}$.\n#### 17"),
        ("Add. So $\\boxed{17}$.\nThe answer is: 17", "17", "Add.\nSo ${17}$.\n#### 17"),
        ("Divide.\nSo \\boxed\\frac{1}{2}.", "\\frac{1}{2}", "Divide.\nSo {\\frac{1}{2}}.\n\\boxed{\\frac{1}{2}}"),
    ],
)
def test_a_gold_that_is_a_whole_solution(answer: str, gold: str, rationale: str) -> None:
    [problem] = load_problems([{"question": "How many?", "answer": answer}])
    assert (problem.answer, problem.rationale) == (gold, rationale)
    assert is_correct(extract_answer(problem.rationale), gold)
    assert problem.n_steps == rationale.count("\n")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("#### 17", "17"),
        ("$\\boxed{17}$.", "17"),
        ("The answer is 72.", "72"),
        ("Answer: $1,200", "1200"),
        ("#### \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("#### 5/6", "5/6"),
        ("#### Cairo", "Cairo"),
        ("#### (1, 2)", "(1, 2)"),
        ("#### The answer is 72", "72"),
    ],
)
def test_a_gold_with_a_marker_is_not_a_solution(text: str, gold: str) -> None:
    assert extract_gold(text) == gold
    assert not is_solution(text)
    [problem] = load_problems([{"question": "How many?", "answer": text}])
    assert (problem.answer, problem.rationale, problem.n_steps) == (gold, "", 0)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("#### 3\nor rather\n#### 4", "4"),
        ("\\boxed{3}\nSo the answer is 4.", "4"),
        ("Our guess is right, so our answer is correct: $\\boxed{3}$", "3"),
        ("So $\\boxed{3}$. We check that our answer is right.", "3"),
        ("It is 7 miles.", None),
        ("x = 3 # a comment", None),
    ],
)
def test_the_last_marker_is_read(text: str, gold: str | None) -> None:
    assert extract_gold(text) == gold


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("9 + 8 = 17\n17 - 2 = 15\nso 15", "an answer of 3 lines without a marker"),
        ("Tom has 9 pens and buys 8. So he has 17.", "an answer of several sentences without a marker"),
        ("so we add " * 30, "an answer of 299 characters without a marker"),
        ("The sum is \\boxed{", "an answer with a marker but nothing to read in it"),
        ("9 + 8 = 17 ####", "an answer with a marker but nothing to read in it"),
    ],
)
def test_a_solution_without_a_marker_is_refused_with_its_row(answer: str, reason: str) -> None:
    rows = [{"question": "One?", "answer": "1"}, {"question": "How many?", "answer": answer}]
    with pytest.raises(DPCInterpError, match=f"rows, row 2, has {reason}") as caught:
        load_problems(rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", ["St. Petersburg", "Dr. No", "5 p.m. on Monday", "x^2 + 1", "Washington, D.C.", "17 or 18", "-3.5"]
)
def test_a_short_answer_is_left_as_it_is(answer: str) -> None:
    assert check_gold(answer, "row 1,") == answer
    assert load_problems([{"question": "What?", "answer": answer}])[0].answer == answer


def test_lines_of_a_matrix_are_one_answer() -> None:
    text = "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}"
    assert check_gold(text, "row 1,") == "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"


@pytest.mark.parametrize(
    "row",
    [
        {"answer": "9 + 8 = 17\n#### 17", "rationale": "We add: 9 + 8 = 17"},
        {"answer": "#### 17", "rationale": ["We add: 9 + 8 = 17"]},
        {"answer": 17, "solution": "We add: 9 + 8 = 17"},
        {"solution": "We add: 9 + 8 = 17\n#### 17"},
        {"rationale": "We add: 9 + 8 = 17\n#### 17"},
    ],
)
def test_an_answer_and_a_solution_side_by_side(row: dict[str, object]) -> None:
    [problem] = load_problems([{"question": "How many?"} | row])
    assert (problem.answer, problem.rationale, problem.n_steps) == ("17", "We add: 9 + 8 = 17\n#### 17", 1)


def test_body_of_keeps_phrases_within_a_solution_with_hashes() -> None:
    assert body_of("Since it is the 5th day, the answer is 5.\n#### 5") == "Since it is the 5th day, the answer is 5."


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("9 + 8 = 17\n\n  17 - 2 = 15\n", ["9 + 8 = 17", "17 - 2 = 15"]),
        ("One. Two! Three?  Four", ["One.", "Two!", "Three?", "Four"]),
        ("One. Two.\nThree.", ["One. Two.", "Three."]),
        ("3.5 is a half of 7.", ["3.5 is a half of 7."]),
        (" \n ", []),
    ],
)
def test_split_steps(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps
    if steps:
        assert len(step_ends(text.strip())) == len(steps), "segments count the same steps in a transcript"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("17", "#### 17"),
        ("-3", "#### -3"),
        ("1,234.5", "#### 1,234.5"),
        ("B", "The answer is B"),
        ("F", "\\boxed{F}"),
        ("1/2", "\\boxed{1/2}"),
        ("x + 1", "\\boxed{x + 1}"),
        ("grandmother", "\\boxed{grandmother}"),
    ],
)
def test_answer_line(answer: str, line: str) -> None:
    assert answer_line(answer) == line
    assert is_correct(extract_answer(line), answer)


@pytest.mark.skipif(not DATA, reason="set DPC_INTERP_DATA to a folder with the files of GSM8K, MATH-500 and AQuA")
class TestPublishedFiles:
    """Golds of all rows of the files that the authors of the benchmarks published."""

    @staticmethod
    def rows(*names: str) -> list[dict[str, str]]:
        return [json.loads(line) for name in names for line in Path(DATA, name).read_text("utf-8").splitlines()]

    def test_gsm8k(self) -> None:
        rows = self.rows("gsm8k_train.jsonl", "gsm8k_test.jsonl")
        golds = [row["answer"].rpartition("#### ")[2].strip().replace(",", "") for row in rows]
        problems = list(read_rows(rows, "gsm8k", "GSM8K"))
        assert [problem.answer for problem in problems] == golds
        assert [extract_answer(problem.rationale) for problem in problems] == golds
        assert [extract_gold(row["answer"]) for row in rows] == golds
        assert len(golds) == 8792

    def test_math_500(self) -> None:
        rows = self.rows("math500.jsonl")
        assert [row["answer"] for row in rows if not is_correct(extract_gold(row["solution"]), row["answer"])] == []
        assert [row["answer"] for row in rows if not is_correct(extract_answer(row["solution"]), row["answer"])] == []
        assert len(rows) == 500

    def test_aqua(self) -> None:
        rows = self.rows("aqua_dev.json", "aqua_test.json")
        problems = list(read_rows(rows, "aqua", "AQuA"))
        assert [problem.answer for problem in problems] == [row["correct"] for row in rows]
        assert [extract_answer(problem.rationale) for problem in problems] == [row["correct"] for row in rows]
        stated = [(extract_gold(row["rationale"]), row["correct"]) for row in rows]
        assert sum(is_correct(gold, letter) for gold, letter in stated) == N_AQUA_STATED
        assert len(rows) == 508
