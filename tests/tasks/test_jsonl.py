"""Problems from a `.jsonl` file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, Problem, load_problems


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_fields(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"question": "How many?", "answer": 17, "rationale": "9 + 8 = 17\n\nso\n#### 17", "id": 3, "task": "sums"},
        {"question": "Wie viele – ü?\u2028Sag es.", "answer": "B"},
        {"question": "And now?", "answer": "3.50", "rationale": None, "id": None, "task": None},
    )
    first, second, third = load_problems(path, n=None)
    assert first == Problem("sums", "How many?", "9 + 8 = 17\n\nso\n#### 17", "17", 2, "3"), (
        "neither blank nor answer line is a step"
    )
    assert (second.task, second.question, second.rationale, second.answer) == (
        "mine",
        "Wie viele – ü?\u2028Sag es.",
        "",
        "B",
    )
    assert (third.task, third.rationale, third.answer, third.n_steps) == ("mine", "", "3.50", 0), (
        "what is missing is not 'nan'"
    )
    assert len({first.id, second.id, third.id}) == 3
    assert second.id.startswith("mine-")


def test_n_takes_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", *({"question": f"{k}?", "answer": str(k)} for k in range(9)))
    assert [problem.answer for problem in load_problems(path, n=3)] == ["0", "1", "2"]
    assert len(load_problems(path)) == 9


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"question": "a"}\n', "line 1, lacks the column 'answer'"),
        ('{"question": "a", "answer": "1"}\n{"answer": "1"}\n', "line 2, lacks the column 'question'"),
        ('{"question": "a", "answer": null}\n', "lacks the column 'answer'"),
        ('{"question": "a", \n', "line 1, is not JSON"),
        ("[1, 2]\n", "not a JSON object"),
        ("", "is empty"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(DPCInterpError, match=match) as caught:
        load_problems(str(tmp_path / "bad.jsonl"))
    assert "\n" not in str(caught.value)
