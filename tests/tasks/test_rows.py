"""Problems from rows and files: every layout, the splitting of steps, and what is wrong with a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from dpc_interp import DPCInterpError, Problem, load_problems
from dpc_interp.analysis.segments import step_ends
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.rows import answer_line, problems_from_file, problems_from_rows, split_steps, take

GSM8K = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72 clips.\n#### 1,072",
}
MATH = {
    "problem": "What is $\\frac{1}{4}+\\frac{1}{4}$?",
    "level": "Level 1",
    "type": "Prealgebra",
    "solution": "The parts are equal. We get $\\frac{2}{4}$, so the sum is $\\boxed{\\frac{1}{2}}$.",
}
MATH500 = MATH | {"answer": "\\frac{1}{2}", "subject": "Prealgebra", "level": 1, "unique_id": "test/1.json"}
AQUA = {
    "question": "A car goes 60 km in 2 hours. What is its speed in km/h?",
    "options": ["A)21", "B)30", "C)35", "D)40", "E)60"],
    "rationale": "Speed is distance by time.\n60 / 2 = 30\nAnswer is B",
    "correct": "B",
}
LINES = {
    "gsm8k": ["Natalia sold 48/2 = 24 clips in May.", "Altogether 48+24 = 72 clips.", "#### 1072"],
    "math": [
        "The parts are equal.",
        "We get $\\frac{2}{4}$, so the sum is ${\\frac{1}{2}}$.",
        "\\boxed{\\frac{1}{2}}",
    ],
    "aqua": ["Speed is distance by time.", "60 / 2 = 30", "The answer is B"],
}


def write(path: Path, *rows: object) -> str:
    if path.suffix == ".parquet":
        columns = list(dict.fromkeys(column for row in rows for column in row))
        parquet.write_table(pa.Table.from_pydict({c: [row.get(c) for row in rows] for c in columns}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("layout", "row", "answer"),
    [("gsm8k", GSM8K, "1072"), ("math", MATH, "\\frac{1}{2}"), ("math", MATH500, "\\frac{1}{2}"), ("aqua", AQUA, "B")],
)
def test_benchmark_layouts(tmp_path: Path, suffix: str, layout: str, row: dict[str, object], answer: str) -> None:
    [problem] = load_problems(write(tmp_path / f"mine{suffix}", row))
    assert problem.rationale.split("\n") == LINES[layout]
    assert (problem.answer, problem.n_steps, problem.task) == (answer, 2, "mine")
    assert is_correct(extract_answer(problem.rationale), problem.answer)
    question = row["problem" if layout == "math" else "question"]
    if layout == "aqua":
        question = f"{question}\nAnswer Choices: (A) 21 (B) 30 (C) 35 (D) 40 (E) 60"
    assert problem.question == question


def test_plain_layout(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"question": "How many?", "answer": 17, "rationale": "9 + 8 = 17\n\nso\n#### 17", "id": 3, "task": "sums"},
        {"question": "Wie viele – ü?\u2028Sag es.", "answer": "B"},
        {"question": "And now?", "answer": "3.50", "rationale": None, "id": None, "task": None},
    )
    first, second, third = load_problems(path, n=None)
    assert first == Problem("sums", "How many?", "9 + 8 = 17\n\nso\n#### 17", "17", 2, "3"), (
        "neither a blank line nor the answer line is a step"
    )
    assert (second.task, second.question) == ("mine", "Wie viele – ü?\u2028Sag es.")
    assert (second.rationale, second.answer) == ("", "B")
    assert (third.task, third.rationale, third.answer, third.n_steps) == ("mine", "", "3.50", 0), (
        "a missing value is not the text 'None'"
    )
    assert len({first.id, second.id, third.id}) == 3
    assert second.id.startswith("mine-")


def test_missing_columns_of_parquet(tmp_path: Path) -> None:
    """Parquet fills the columns that a row does not have with None; they do not change its layout."""
    problems = load_problems(write(tmp_path / "mine.parquet", AQUA, {"question": "How many?", "answer": "3"}))
    assert [problem.answer for problem in problems] == ["B", "3"]


def test_a_json_file_may_hold_one_object(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(GSM8K))
    assert [problem.answer for problem in problems_from_file(tmp_path / "one.json", None, None)] == ["1072"]


def test_rows_that_are_not_mathematics() -> None:
    rows = [
        {
            "question": "Ann is the mother of Ben. Ben is the father of Cleo. Who is Ann to Cleo?",
            "rationale": ["Ben is a parent of Cleo.", "Ann is the mother of a parent of Cleo."],
            "answer": "grandmother",
        },
        {"question": "Which comes first? (A) May (B) March", "rationale": "March is earlier. So B.", "answer": "B"},
    ]
    family, order = load_problems(iter(rows))
    assert (family.n_steps, family.rationale.split("\n")[-1]) == (2, "\\boxed{grandmother}")
    assert (order.n_steps, order.rationale.split("\n")[-1]) == (2, "The answer is B")
    assert is_correct(extract_answer(family.rationale), "Grandmother")
    assert not is_correct("grandfather", family.answer)
    with pytest.raises(DPCInterpError, match="row 2, lacks the column 'answer'"):
        load_problems([rows[0], {"question": "a"}])


@pytest.mark.parametrize(
    ("solution", "steps", "answer"),
    [
        ("Add.\nSo $\\boxed 3$.", ["Add.", "So ${3}$."], "3"),
        ("Add.\nSo $\\fbox{3}$.", ["Add.", "So ${3}$."], "3"),
        ("$\\boxed{1}$ or rather\n$\\boxed{2}$.", ["${1}$ or rather", "${2}$."], "2"),
    ],
)
def test_boxes_of_math(solution: str, steps: list[str], answer: str) -> None:
    [problem] = problems_from_rows([{"problem": "How many?", "solution": solution}])
    assert problem.rationale.split("\n") == [*steps, f"\\boxed{{{answer}}}"]
    assert problem.answer == answer


@pytest.mark.parametrize("last", ["Answer is B", "So the correct answer is (B).", "Option B", "ANS: B", "B", "(B)."])
def test_answer_sentences_of_aqua_are_removed(last: str) -> None:
    [problem] = problems_from_rows([AQUA | {"rationale": f"60 / 2 = 30\n{last}"}])
    assert problem.rationale == "60 / 2 = 30\nThe answer is B"


def test_other_last_lines_of_aqua_stay() -> None:
    [problem] = problems_from_rows([AQUA | {"rationale": "60 / 2 = 30\nBoth ways the speed is 30"}])
    assert problem.rationale == "60 / 2 = 30\nBoth ways the speed is 30\nThe answer is B"


@pytest.mark.parametrize("options", ["A)21 B)22", 21])
def test_options_of_aqua_must_be_a_list(options: object) -> None:
    with pytest.raises(DPCInterpError, match="row 1, has options that are not a list"):
        load_problems([{"question": "How many?", "options": options, "correct": "A"}])


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


def test_n_takes_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", *({"question": f"{k}?", "answer": str(k)} for k in range(9)))
    assert [problem.answer for problem in load_problems(path, n=3)] == ["0", "1", "2"]
    assert len(load_problems(path)) == 9


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("bad.jsonl", '{"question": "a"}\n', "line 1, lacks the column 'answer'"),
        ("bad.jsonl", '{"question": "a", "answer": "1"}\n{"answer": "1"}\n', "line 2, lacks the column 'question'"),
        ("bad.jsonl", '{"question": "a", "answer": null}\n', "lacks the column 'answer'"),
        ("bad.jsonl", '{"question": "a", \n', "line 1, is not JSON .* write one JSON object per line"),
        ("bad.jsonl", "[1, 2]\n", "not a JSON object"),
        ("bad.jsonl", "", "is empty"),
        ("bad.jsonl", '{"problem": "a", "solution": "so it is 3."}\n', "line 1, has no .boxed answer"),
        ("bad.json", '[{"question": "a"}]', "row 1, lacks the column 'answer'"),
        ("bad.json", "[", "is not JSON .* write a list of JSON objects"),
        ("bad.parquet", "[]", "is not a parquet file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DPCInterpError, match=match) as caught:
        load_problems(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DPCInterpError, match=r"is not a file; give the path of a \.json file"):
        load_problems(str(tmp_path / "none.json"))
