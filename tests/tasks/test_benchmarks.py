"""Benchmarks in their public columns, rows of other tasks, and the templates of gsm_symbolic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.tasks import benchmarks
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.problems import split_of

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
STEPS = {
    "gsm8k": ["Natalia sold 48/2 = 24 clips in May.", "Altogether 48+24 = 72 clips.", "#### 1072"],
    "math": [
        "The parts are equal.",
        "We get $\\frac{2}{4}$, so the sum is ${\\frac{1}{2}}$.",
        "\\boxed{\\frac{1}{2}}",
    ],
    "aqua": ["Speed is distance by time.", "60 / 2 = 30", "The answer is B"],
}


def write(path: Path, row: dict[str, object]) -> str:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if path.suffix == ".json" else row) + "\n")
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("kind", "row", "answer"),
    [("gsm8k", GSM8K, "1072"), ("math", MATH, "\\frac{1}{2}"), ("math", MATH500, "\\frac{1}{2}"), ("aqua", AQUA, "B")],
)
def test_columns(tmp_path: Path, suffix: str, kind: str, row: dict[str, object], answer: str) -> None:
    [problem] = load_problems(write(tmp_path / f"mine{suffix}", row))
    assert problem.rationale.split("\n") == STEPS[kind]
    assert (problem.answer, problem.n_steps, problem.task) == (answer, 2, "mine")
    assert is_correct(extract_answer(problem.rationale), problem.answer)
    asked = row["problem" if kind == "math" else "question"]
    if kind == "aqua":
        asked = f"{asked}\nAnswer Choices: (A) 21 (B) 30 (C) 35 (D) 40 (E) 60"
    assert problem.question == asked


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


def test_splits_and_draws_of_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, repository: str, configuration: str, split: str) -> list[dict[str, object]]:
        return [{"question": f"{split} {k}?", "answer": f"{k} is it.\n#### {k}"} for k in [*range(400), 0]]

    monkeypatch.setattr(benchmarks, "_fetch", fetch)
    train, validation, test = (load_problems("gsm8k", split, n=None) for split in ("train", "validation", "test"))
    assert len(train) + len(validation) == len(test) == 400
    assert 20 <= len(validation) <= 60
    assert not {p.question for p in train} & {p.question for p in validation}
    assert all(p.question.startswith("test") for p in test)
    assert load_problems("gsm8k", n=9, seed=1) == load_problems("gsm8k", n=50, seed=1)[:9]
    assert load_problems("gsm8k", n=9, seed=1) != load_problems("gsm8k", n=9, seed=2)


@pytest.mark.parametrize("name", ["gsm8k", "math", "math500", "aqua"])
def test_out_of_reach(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DPCInterpError, match=f"{name} cannot be fetched.*give the path") as caught:
        load_problems(name, n=3)
    assert "\n" not in str(caught.value)


OFFLINE = """
import sys, time
from dpc_interp import DPCInterpError, load_problems, load_prompt
for load, name in ((load_problems, "gsm8k"), (load_prompt, "someone/story-prompt")):
    start = time.monotonic()
    try:
        load(name)
    except DPCInterpError as error:
        print(f"{time.monotonic() - start:.1f}", error)
"""


def test_without_a_network_it_fails_in_seconds(tmp_path: Path) -> None:
    """In a process of its own: the clients read where the hub is when they are imported."""
    env = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, check=True)
    said = [line.partition(" ") for line in done.stdout.splitlines()]
    assert ["gsm8k cannot be fetched" in said[0][2], "cannot be fetched from the hub" in said[1][2]] == [True] * 2
    assert all(float(seconds) < 10 for seconds, _, _ in said)


def test_without_a_network_the_cache_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from datasets.arrow_writer import ArrowWriter

    folder = tmp_path / "openai___gsm8k" / "main" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    with ArrowWriter(path=str(folder / "gsm8k-test.arrow")) as writer:
        writer.write(GSM8K)
        writer.finalize()
    datasets.DatasetInfo(
        features=datasets.Features(dict.fromkeys(GSM8K, datasets.Value("string"))),
        builder_name="parquet",
        dataset_name="gsm8k",
        config_name="main",
        version="0.0.0",
        splits=[{"name": "test", "num_bytes": 1, "num_examples": 1, "dataset_name": "gsm8k"}],
    ).write_to_directory(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    [problem] = load_problems("gsm8k", "test")
    assert problem.rationale.split("\n") == STEPS["gsm8k"]


def test_gsm_symbolic() -> None:
    from dpc_interp.tasks.gsm_symbolic import template_of

    pytest.importorskip("reasoning_gym")
    found = load_problems("gsm_symbolic/12,38", n=20)
    assert {template_of(p) for p in found} == {12, 38}
    assert found[:7] == load_problems("gsm_symbolic/12,38", n=7)
    assert all(split_of(p.question) == "test" for p in found)
    assert all(is_correct(extract_answer(p.rationale), p.answer) for p in load_problems("gsm_symbolic", "train", n=300))
    assert {p.n_steps for p in load_problems("gsm_symbolic", n=30, max_steps=2)} <= {1, 2}
    with pytest.raises(DPCInterpError, match="template that is not there"):
        load_problems("gsm_symbolic/32", n=3)


def test_gsm_symbolic_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.arithmetic.gsm_symbolic", None)
    with pytest.raises(DPCInterpError, match="pip install reasoning-gym"):
        load_problems("gsm_symbolic", n=3)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 5\n#### 1,234", "1234", "1234"),
        ("it is $18.", None, "18"),
        ("#### 5 and 6", "5", "6"),
        ("none", None, None),
    ],
)
def test_extraction_of_lm_evaluation_harness(text: str, strict: str | None, flexible: str | None) -> None:
    assert extract_answer(text, "strict") == strict
    assert extract_answer(text, "flexible") == flexible


def test_nested_box() -> None:
    assert extract_answer("so $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert extract_answer("\\boxed{\\{1, \\frac{1}{2}\\}}") == "\\{1, \\frac{1}{2}\\}"
    assert extract_answer("\\boxed{\\frac{1}{2}") is None


@pytest.mark.parametrize("options", ["A)21 B)22", 21])
def test_aqua_options_must_be_a_list(options: object) -> None:
    with pytest.raises(DPCInterpError, match="row 1, has options that are no list"):
        load_problems([{"question": "How many?", "options": options, "correct": "A"}])
