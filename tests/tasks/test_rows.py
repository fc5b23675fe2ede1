"""Problems from rows and files: every layout, the splitting of steps, and what is wrong with a file."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from dpc_interp import DPCInterpError, Problem, load_problems
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.problem import check_distinct
from dpc_interp.tasks.rows import problems_from_file, problems_from_rows

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


@pytest.mark.parametrize("options", ["A)21 B)22", 21])
def test_options_of_aqua_must_be_a_list(options: object) -> None:
    with pytest.raises(DPCInterpError, match="row 1, has options that are not a list"):
        load_problems([{"question": "How many?", "options": options, "correct": "A"}])


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


MISSING = [
    None,
    math.nan,
    np.nan,
    np.float32("nan"),
    pd.NA,
    pd.NaT,
    np.datetime64("NaT"),
    Decimal("nan"),
    "",
    " \n",
    [],
]


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_values_are_missing_columns(value: object) -> None:
    row = {"question": "How many?", "answer": 17, "rationale": value, "id": value, "task": value, "options": value}
    assert load_problems([row]) == load_problems([{"question": "How many?", "answer": 17}])
    with pytest.raises(DPCInterpError, match=r"row 1, lacks the column 'answer'; .* \(it has question\)"):
        load_problems([{"question": "How many?", "answer": value}])
    with pytest.raises(DPCInterpError, match="row 1, lacks the column 'question'"):
        load_problems([{"question": value, "answer": 17}])


def test_missing_values_of_a_data_frame() -> None:
    frame = pd.DataFrame([{"question": "a?", "answer": 17}, {"question": "b?", "answer": 3.5, "rationale": "x\ny"}])
    for table in (frame, frame.convert_dtypes()):
        first, second = load_problems(table)
        assert (first.answer, first.rationale, second.answer, second.n_steps) == ("17", "", "3.5", 2)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (np.int64(17), "17"),
        (17.0, "17"),
        (np.float64(-17.0), "-17"),
        (17.5, "17.5"),
        (1e22, "1e+22"),
        (True, "True"),
        (np.bool_(False), "False"),
        (np.array(17), "17"),
        (np.array([17]), "17"),
        (["Cairo"], "Cairo"),
        (np.str_("Cairo"), "Cairo"),
        (Decimal("3.50"), "3.50"),
        (" 17 ", "17"),
    ],
    ids=repr,
)
def test_values_of_other_types(value: object, answer: str) -> None:
    assert load_problems([{"question": "How many?", "answer": value}])[0].answer == answer


@pytest.mark.parametrize(
    "steps",
    [
        ["9 + 8 = 17", "So 17"],
        ("9 + 8 = 17", "So 17"),
        np.array(["9 + 8 = 17", "So 17"]),
        np.array(["9 + 8 = 17", None, "So 17"], dtype=object),
        pd.Series(["9 + 8 = 17", "So 17"]),
        ["9 + 8 = 17", math.nan, "So 17"],
        "['9 + 8 = 17', 'So 17']",
    ],
    ids=lambda steps: type(steps).__name__,
)
def test_arrays_of_steps_are_joined_by_line_breaks(steps: object) -> None:
    [problem] = load_problems([{"question": "How many?", "answer": 17, "rationale": steps}])
    assert (problem.rationale, problem.n_steps) == ("9 + 8 = 17\nSo 17\n#### 17", 2)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"rationale": "['a' 'b']"}, "a rationale that is a printed array"),
        ({"rationale": [{"step": "a"}]}, "a value of type dict as rationale"),
        ({"answer": ["17", "18"]}, "a value of type list as answer"),
        ({"answer": {"value": 17}}, "a value of type dict as answer"),
        ({"answer": b"17"}, "a value of type bytes as answer"),
        ({"question": ["a?", "b?"]}, "a value of type list as question"),
        ({"question": {"text": "a?"}}, "a value of type dict as question"),
        ({"question": "half \ud83d"}, "a question with half a character"),
        ({"id": ["a", "b"]}, "a value of type list as id"),
    ],
)
def test_values_that_are_no_text_are_refused_by_name(columns: dict[str, object], match: str) -> None:
    rows = [{"question": "a?", "answer": 1}, {"question": "How many?", "answer": 17} | columns]
    with pytest.raises(DPCInterpError, match=f"rows, row 2, has {match}") as caught:
        load_problems(rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "question",
    [
        [{"role": "user", "content": "How many?"}],
        {"role": "user", "content": "How many?"},
        np.array([{"role": "user", "content": "How many?"}]),
        [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}],
        [{"from": "human", "value": "How many?"}],
    ],
)
def test_one_chat_message_of_the_user_is_a_question(question: object) -> None:
    assert load_problems([{"question": question, "answer": 17}])[0].question == "How many?"


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([("system", "Be brief."), ("user", "How many?")], '2 chat messages, the first of system; .*template="chat"'),
        ([("user", "Hi"), ("assistant", "Hello"), ("user", "How many?")], "3 chat messages, the first of user"),
        ([("assistant", "How many?")], "1 chat messages, the first of assistant"),
    ],
)
def test_other_chats_are_refused_by_name(messages: list[tuple[str, str]], match: str) -> None:
    question = [{"role": role, "content": content} for role, content in messages]
    with pytest.raises(DPCInterpError, match=f"row 1, has a question of {match}"):
        load_problems([{"question": question, "answer": 17}])


def test_the_same_question_twice_gets_distinct_ids() -> None:
    rows = [{"question": q, "answer": "1"} for q in ("a?", "b?", "a?", "a?")]
    problems = load_problems(rows)
    first, other = problems[0].id, problems[1].id
    assert [problem.id for problem in problems] == [first, other, f"{first}-2", f"{first}-3"]
    assert load_problems(rows, n=3) == problems[:3]
    check_distinct(problems)
    for benchmark in (GSM8K, MATH, AQUA):
        check_distinct(load_problems([benchmark, benchmark]))


def test_max_steps_does_not_change_ids() -> None:
    rows = [{"question": "a?", "answer": "1", "rationale": "x\n" * k} for k in (3, 1, 1)]
    assert [p.id for p in load_problems(rows, max_steps=2)] == [p.id for p in load_problems(rows)][1:]


@pytest.mark.parametrize(("first", "second"), [("x", "x"), (3, 3.0), (np.int64(3), "3")])
def test_the_same_id_twice_is_refused(tmp_path: Path, first: object, second: object) -> None:
    rows = [{"question": "a?", "answer": 1, "id": first}, {"question": "b?", "answer": 1}]
    rows.append({"question": "c?", "answer": 1, "id": second})
    with pytest.raises(DPCInterpError, match=f"rows, row 3, has the id '{first}' of row 1; give every row a different"):
        load_problems(rows)
    path = tmp_path / "mine, too.jsonl"
    path.write_text('\n{"question": "a", "answer": 1, "id": "x"}\n{"question": "a", "answer": 1, "id": "x"}\n')
    with pytest.raises(DPCInterpError, match="line 3, has the id 'x' of line 2"):
        load_problems(path)


def test_a_written_default_id_does_not_clash() -> None:
    [problem] = load_problems([{"question": "a?", "answer": 1}])
    again = load_problems([{"question": "a?", "answer": 1}, {"question": "a?", "answer": 1, "id": problem.id}])
    check_distinct(again)


@pytest.mark.parametrize("row", [GSM8K, MATH, AQUA])
def test_ids_and_tasks_of_benchmark_rows_are_kept(row: dict[str, object]) -> None:
    [problem] = load_problems([row | {"id": 7, "task": "school"}])
    assert (problem.id, problem.task) == ("7", "school")


def test_problem_and_answer_without_a_solution() -> None:
    [problem] = load_problems([{"problem": "How many?", "answer": 17}])
    assert (problem.question, problem.answer, problem.rationale) == ("How many?", "17", "")


@pytest.mark.parametrize(
    "last", ["#### Cairo", "####Cairo", "The answer is Cairo.", "So \\boxed{Cairo}", "Answer: Cairo"]
)
def test_a_rationale_that_states_a_word_gets_no_second_answer_line(last: str) -> None:
    row = {"question": "Where?", "answer": "Cairo", "rationale": f"It is on the Nile.\n{last}"}
    assert load_problems([row])[0].rationale == row["rationale"]
