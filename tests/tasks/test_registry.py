"""`load_problems`: draws of the synthetic tasks that never change, splits, seeds and difficulties."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.problem import SPLITS, split_of
from dpc_interp.tasks.registry import BENCHMARKS, GENERATED, MAKERS, MAX_STEPS, SYNTHETIC, has_validation

# Digests of the first 60 problems with seed 3 and at most 2 steps. The bundled prompts were tuned on such draws and the
# figures were drawn from them, so these digests must not change.
DIGESTS = {
    ("story", "train"): "674e160facc8e993",
    ("story", "validation"): "61594060cfeccc2f",
    ("story", "test"): "5e2c682146e64954",
    ("choice", "train"): "920f09c1b5ea86ff",
    ("choice", "validation"): "db41e7817dd847f2",
    ("choice", "test"): "91b2e73e9288707f",
    ("algebra", "train"): "5e19ecbba6ecf56f",
    ("algebra", "validation"): "f6f5a51095d1f27e",
    ("algebra", "test"): "237da7e73d120e58",
    ("rule", "train"): "8dbdf14d32bb82e8",
    ("rule", "validation"): "2b6221556803642a",
    ("rule", "test"): "d514c9010f337440",
}


@pytest.mark.parametrize(("task", "split"), DIGESTS)
def test_draws_have_not_changed(task: str, split: str) -> None:
    problems = load_problems(task, split, n=60, seed=3, max_steps=2)
    rows = [[p.task, p.question, p.rationale, p.answer, p.n_steps, p.id] for p in problems]
    assert hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest() == DIGESTS[task, split]


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


@pytest.mark.parametrize("task", SYNTHETIC)
def test_seed_decides_and_a_longer_draw_begins_with_the_shorter(task: str) -> None:
    long = load_problems(task, n=60, seed=2, max_steps=3)
    assert load_problems(task, n=60, seed=2, max_steps=3) == long
    assert load_problems(task, n=17, seed=2, max_steps=3) == long[:17]
    assert load_problems(task, n=60, seed=3, max_steps=3) != long


@pytest.mark.parametrize("task", SYNTHETIC)
def test_difficulties_are_equally_frequent_and_problems_distinct(task: str) -> None:
    problems = load_problems(task, n=60, seed=2, max_steps=3)
    assert pd.Series([problem.n_steps for problem in problems]).value_counts().to_dict() == {1: 20, 2: 20, 3: 20}
    assert len({problem.id for problem in problems}) == len({problem.question for problem in problems}) == 60
    assert {problem.task for problem in problems} == {task}
    assert all(problem.id.startswith(f"{task}-") for problem in problems)


@pytest.mark.parametrize("task", SYNTHETIC)
def test_max_steps_defaults_to_the_hardest(task: str) -> None:
    assert load_problems(task, n=8) == load_problems(task, n=8, max_steps=MAX_STEPS[task])
    assert max(problem.n_steps for problem in load_problems(task, n=8)) == MAX_STEPS[task]


def test_every_synthetic_task_has_a_largest_number_of_steps() -> None:
    assert MAX_STEPS.keys() == MAKERS.keys()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"name": "storry"}, UnknownNameError, "unknown task 'storry'; known: story, .*aqua, a path ending in .jsonl"),
        ({"name": "gsm_symbolics/12"}, UnknownNameError, "unknown task 'gsm_symbolics/12'"),
        ({"name": "story", "split": "dev"}, UnknownNameError, "unknown split 'dev'; known: train, validation, test"),
        ({"name": "story", "n": 0}, DPCInterpError, "n is 0; request at least 1 problem"),
        ({"name": "story", "n": None}, DPCInterpError, "story is generated and has no end; give n"),
        ({"name": "gsm_symbolic", "n": None}, DPCInterpError, "gsm_symbolic is generated and has no end; give n"),
        ({"name": "rule", "max_steps": 5}, DPCInterpError, "max_steps is 5; rule has problems of 1 to 4 steps"),
        ({"name": "rule", "max_steps": 0}, DPCInterpError, "max_steps is 0; rule has problems of 1 to 4 steps"),
    ],
)
def test_invalid_arguments(arguments: dict[str, object], error: type[DPCInterpError], match: str) -> None:
    with pytest.raises(error, match=match):
        load_problems(**arguments)


def test_files_and_rows_give_their_first_problems(tmp_path: Path) -> None:
    rows = [{"question": f"{k}?", "answer": str(k)} for k in range(9)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    from_file = load_problems(str(tmp_path / "mine.json"), split="no split", n=4, seed=5)
    assert [problem.answer for problem in from_file] == ["0", "1", "2", "3"]
    assert load_problems(rows, n=4, seed=6) == from_file, "split and seed are ignored"
    assert len(load_problems(rows, n=None)) == 9


@pytest.mark.parametrize("name", [*GENERATED, "gsm_symbolic/12,38", "gsm8k", "math", "aqua"])
def test_tasks_with_validation_split(name: str) -> None:
    assert has_validation(name)


@pytest.mark.parametrize("name", ["math500", "mine", "runs/mine.jsonl", "story.jsonl"])
def test_tasks_without_validation_split(name: str) -> None:
    assert not has_validation(name)


def test_benchmarks_by_name() -> None:
    assert BENCHMARKS == ("gsm8k", "math", "math500", "aqua")


def test_paths_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Path` objects, `~` and upper-case suffixes; a file that has the name of a task is reached by its suffix."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "story.JSONL").write_text('{"question": "How many?", "answer": 17}\n')
    expected = load_problems(str(tmp_path / "story.JSONL"))
    assert [(problem.task, problem.answer) for problem in expected] == [("story", "17")]
    for name in (tmp_path / "story.JSONL", "~/story.JSONL", Path("~/story.JSONL")):
        assert load_problems(name) == expected
        assert not has_validation(name)
    monkeypatch.chdir(tmp_path)
    assert load_problems("story.JSONL") == load_problems(Path("story.JSONL")) == expected
    (tmp_path / "algebra").mkdir()
    assert load_problems("algebra", n=1)[0].task == "algebra", "the name of a task, though a folder has it too"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("~nobody-of-this-name/mine.jsonl", "names a home folder that does not exist; write the path without ~"),
        (Path("~nobody-of-this-name/mine.jsonl"), "names a home folder that does not exist"),
        (Path("none.jsonl"), r"none.jsonl is not a file; give the path of a \.jsonl file"),
        (Path("story"), r"story is not a \.jsonl, .* or \.parquet file"),
        ("none.xlsx", "unknown task 'none.xlsx'; known: .* a path ending in .jsonl, .ndjson, .json, .csv, .tsv or"),
    ],
)
def test_paths_that_lead_nowhere(name: object, match: str) -> None:
    with pytest.raises(DPCInterpError, match=match) as caught:
        load_problems(name)
    assert "\n" not in str(caught.value)
