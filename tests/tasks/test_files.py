"""Rows from files and tables: encodings, formats, suffixes, and files that hold no rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pytest

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.tasks.files import file_stem, file_suffix, read_file, rows_of

ROWS = [{"question": "Wie viele – ü?", "answer": "1"}, {"question": "It’s 2?", "answer": "2"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"
LIST = json.dumps(ROWS, ensure_ascii=False)
CSV = 'question,answer\n"Wie viele – ü?",1\n"It’s 2?",2\n'
FRAME = pd.DataFrame(ROWS)


def load(path: Path, content: str | bytes) -> list[dict[str, object]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [{"question": problem.question, "answer": problem.answer} for problem in load_problems(path)]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize(("name", "text"), [("mine.jsonl", LINES), ("mine.json", LIST), ("mine.csv", CSV)])
def test_encodings(tmp_path: Path, encoding: str, name: str, text: str) -> None:
    assert load(tmp_path / name, text.encode(encoding)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_may_be_written_apart(tmp_path: Path, encoding: str) -> None:
    assert load(tmp_path / "mine.jsonl", ("\ufeff" + LINES).encode(encoding)) == ROWS


@pytest.mark.parametrize(("name", "text", "line"), [("a.jsonl", LINES, 1), ("a.json", LIST, 1), ("a.csv", CSV, 2)])
def test_cp1252_is_refused_in_one_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    """Nothing in the file says which of the encodings of one byte per character it has."""
    with pytest.raises(
        DPCInterpError, match=f"{name}, line {line}, is not utf-8 text; save the file as UTF-8"
    ) as caught:
        load(tmp_path / name, text.encode("cp1252"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.JSONL", LINES),
        ("mine.Json", LIST),
        ("mine.ndjson", LINES),
        ("mine.json", LINES),
        ("mine.json", "\n" + LINES + "\n\n"),
        ("mine.jsonl", LINES.rstrip()),
        ("mine.jsonl", LINES.replace("\n", "\r\n")),
        ("mine.jsonl", LIST),
        ("mine.jsonl", json.dumps(ROWS, indent=1)),
        ("mine.json", "".join(json.dumps(row, indent=1) for row in ROWS)),
        ("mine.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS)),
        ("mine.json", json.dumps({"data": ROWS})),
        ("mine.json", json.dumps({"version": 1, "test": ROWS, "authors": ["Ann"]})),
        ("mine.json", json.dumps({"dataset": {"rows": ROWS}}["dataset"])),
        ("mine.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("mine.JSON.GZ", gzip.compress(LIST.encode("utf-16"), mtime=0)),
        ("mine.jsonl", gzip.compress(LINES.encode(), mtime=0)),
        ("mine.jsonl.gz", LINES),
        ("mine.CSV", CSV),
        ("mine.csv", CSV.replace("\n", "\r\n")),
        ("mine.csv", CSV.replace(",", ";")),
        ("mine.csv", "\n" + CSV + "\n"),
        ("mine.csv", FRAME.to_csv()),
        ("mine.tsv", FRAME.to_csv(sep="\t", index=False)),
        ("mine.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("mine.PARQUET", FRAME.to_parquet()),
    ],
)
def test_formats(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert load(tmp_path / name, content) == ROWS
    assert {problem.task for problem in load_problems(tmp_path / name)} == {"mine"}


@pytest.mark.parametrize("orient", ["records", "split", "table", "index", "columns"])
def test_orients_of_pandas(tmp_path: Path, orient: str) -> None:
    assert load(tmp_path / "mine.json", FRAME.to_json(orient=orient)) == ROWS
    assert [problem.question for problem in load_problems(json.loads(FRAME.to_json(orient=orient)))] == [
        row["question"] for row in ROWS
    ]


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        FRAME.to_dict("list"),
        {name: FRAME[name].to_numpy() for name in FRAME},
        datasets.Dataset.from_list(ROWS),
        datasets.Dataset.from_list(ROWS)[:],
        datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)),
        pa.Table.from_pylist(ROWS),
        tuple(ROWS),
        {"rows": ROWS},
    ],
    ids=["frame", "lists", "arrays", "dataset", "batch", "dataset dict", "pyarrow", "tuple", "object"],
)
def test_tables(table: object) -> None:
    assert [row["answer"] for row in rows_of(table, "rows")] == ["1", "2"]
    assert [problem.answer for problem in load_problems(table)] == ["1", "2"]


def test_one_row_and_an_iterator() -> None:
    assert [problem.answer for problem in load_problems(ROWS[0])] == ["1"]
    assert [problem.answer for problem in load_problems(iter(ROWS))] == ["1", "2"]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (3, "rows is of type int; give a list of dicts, a data frame or a path"),
        (None, "rows is of type NoneType"),
        (b"mine.jsonl", "rows is of type bytes"),
        ({"train": ROWS, "test": ROWS}, r"rows has several lists of rows \(train, test\); give one of them"),
        (
            datasets.DatasetDict(dict.fromkeys("ab", datasets.Dataset.from_list(ROWS))),
            r"several lists of rows \(a, b\)",
        ),
        ({"question": ["a", "b"], "answer": ["1"]}, r"different lengths \(question: 2, answer: 1\)"),
        (json.loads(FRAME.to_json(orient="values")), "row 1, is not a JSON object"),
        (FRAME["question"], "row 1, is not a JSON object"),
        (pd.DataFrame(), "rows is empty"),
        ({}, "rows is empty"),
        ({"frage": "a?"}, r"row 1, lacks the column 'question'; .* \(it has frage\)"),
    ],
)
def test_other_objects_are_refused(table: object, match: str) -> None:
    with pytest.raises(DPCInterpError, match=match):
        load_problems(table)


def test_missing_words_of_csv_are_texts(tmp_path: Path) -> None:
    """pandas would read None, NA and nan as missing; the answer of a question may be None."""
    path = tmp_path / "mine.csv"
    path.write_text('question,answer,rationale\n"Who, and\nwhy?",None,\nWhat?,NA,nan\n')
    first, second = load_problems(path)
    assert (first.question, first.answer, first.rationale) == ("Who, and\nwhy?", "None", "")
    assert (second.answer, second.n_steps) == ("NA", 1)


def test_options_and_steps_survive_a_csv_file(tmp_path: Path) -> None:
    row = {"question": "How many?", "options": ["A)1", "B)2"], "rationale": ["1 + 1 = 2", "It is 2"], "correct": "b"}
    pd.DataFrame([row]).to_csv(tmp_path / "mine.csv", index=False)
    [problem] = load_problems(tmp_path / "mine.csv")
    assert problem.question == "How many?\nAnswer Choices: (A) 1 (B) 2"
    assert problem.rationale == "1 + 1 = 2\nIt is 2\nThe answer is B"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_empty_files(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DPCInterpError, match=f"{name} is empty; give at least one problem"):
        load(tmp_path / name, content)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", "\n\n" + LINES + "\n[1]\n", "line 6, is not a JSON object"),
        ("a.json", LINES[:-9], "line 2, is not JSON .* write one JSON object per line"),
        ("a.json", LIST[:-9], "is not JSON .* write a list of JSON objects"),
        ("a.json", "3", "is of type int"),
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), r"several lists of rows \(train, test\)"),
        ("a.csv", "question,answer\nHow many, or none?,3\n", "line 2, has more fields than the header; quote fields"),
        ("a.csv", "frage,antwort\na?,1\n", r"lacks the column 'question'.*\(it has frage, antwort\)"),
        ("a.csv", "question,answer\n", "is empty"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "is not a complete gzip file"),
        ("a.parquet", b"", "is not a parquet file"),
        ("a.txt", LINES, r"a.txt is not a \.jsonl, .* or \.parquet file"),
        ("a.jsonl.zst", b"", r"a.jsonl.zst is not a \.jsonl"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, content: str | bytes, match: str) -> None:
    with pytest.raises(DPCInterpError, match=match) as caught:
        load(tmp_path / name, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DPCInterpError, match=match):
        load_problems(str(tmp_path / name))


def test_folders_and_missing_files(tmp_path: Path) -> None:
    load(tmp_path / "b.jsonl", LINES)
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(DPCInterpError, match=r"is a folder; give the path of one of its files \(b\.jsonl\)"):
            load_problems(folder)
    with pytest.raises(DPCInterpError, match=r"none\.csv is not a file; give the path of a \.csv file"):
        load_problems(tmp_path / "none.csv")


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n" + LINES.replace("\n", "\n\n"))
    places = [place for place, _ in read_file(tmp_path / "a.jsonl")]
    assert places == [f"{tmp_path / 'a.jsonl'}, line 2,", f"{tmp_path / 'a.jsonl'}, line 4,"]


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [("a.jsonl", ".jsonl", "a"), ("b/a.JSON.gz", ".json", "a"), ("a.b.csv", ".csv", "a.b"), ("story", "", "story")],
)
def test_suffix_and_stem(name: str, suffix: str, stem: str) -> None:
    assert (file_suffix(name), file_stem(Path(name))) == (suffix, stem)
