"""Benchmarks by name: splits, draws, the cache, and errors without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks import benchmarks
from dpc_interp.tasks.benchmarks import HUB_DATASETS, MATH_SUBJECTS

GSM8K = {"question": "Tom has 9 pens and buys 8. How many?", "answer": "He has 9+8=<<9+8=17>>17 pens.\n#### 17"}


@pytest.fixture
def fetch_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], list[dict[str, object]]]], None]:
    """Replace the datasets of the Hub by rows, made from a configuration and a split."""

    def replace_by(rows: Callable[[str, str], list[dict[str, object]]]) -> None:
        monkeypatch.setattr(
            benchmarks, "_fetch", lambda name, repository, configuration, split: rows(configuration, split)
        )

    return replace_by


def gsm8k_rows(_: str, split: str) -> list[dict[str, object]]:
    """400 questions, one of them twice, with 1 to 4 steps."""
    return [
        {"question": f"{split} {k}?", "answer": "One step.\n" * (1 + k % 4) + f"#### {k}"} for k in [*range(400), 0]
    ]


def test_splits_and_draws(fetch_rows: Callable) -> None:
    fetch_rows(gsm8k_rows)
    train, validation, test = (load_problems("gsm8k", split, n=None) for split in ("train", "validation", "test"))
    assert len(train) + len(validation) == len(test) == 400
    assert 20 <= len(validation) <= 60
    assert not {p.question for p in train} & {p.question for p in validation}
    assert all(p.question.startswith("train") for p in [*train, *validation])
    assert all(p.question.startswith("test") for p in test)
    assert load_problems("gsm8k", n=9, seed=1) == load_problems("gsm8k", n=50, seed=1)[:9]
    assert load_problems("gsm8k", n=9, seed=1) != load_problems("gsm8k", n=9, seed=2)


def test_no_seed_moves_a_validation_problem(fetch_rows: Callable) -> None:
    fetch_rows(gsm8k_rows)
    first, second = ({p.question for p in load_problems("gsm8k", "validation", n=None, seed=seed)} for seed in (1, 2))
    assert first == second


def test_draws_do_not_depend_on_the_order_of_the_rows(fetch_rows: Callable) -> None:
    fetch_rows(gsm8k_rows)
    problems = load_problems("gsm8k", n=50)
    fetch_rows(lambda configuration, split: gsm8k_rows(configuration, split)[::-1])
    assert load_problems("gsm8k", n=50) == problems


def test_max_steps(fetch_rows: Callable) -> None:
    fetch_rows(gsm8k_rows)
    assert {problem.n_steps for problem in load_problems("gsm8k", n=None)} == {1, 2, 3, 4}
    assert {problem.n_steps for problem in load_problems("gsm8k", n=None, max_steps=2)} == {1, 2}


def test_math_joins_its_subjects(fetch_rows: Callable) -> None:
    fetch_rows(lambda subject, split: [{"problem": f"{subject} {split}?", "solution": "So $\\boxed{3}$."}])
    problems = load_problems("math")
    assert {problem.question for problem in problems} == {f"{subject} test?" for subject in MATH_SUBJECTS}
    assert len(MATH_SUBJECTS) == 7
    assert {problem.task for problem in problems} == {"math"}


def test_aqua_has_a_published_validation_split(fetch_rows: Callable) -> None:
    fetch_rows(lambda _, split: [{"question": f"{split}?", "options": ["A)1", "B)2"], "correct": "B"}])
    for split in HUB_DATASETS["aqua"].splits:
        [problem] = load_problems("aqua", split)
        assert problem.question == f"{split}?\nAnswer Choices: (A) 1 (B) 2"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_math500_has_a_test_split_only(split: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown split of math500 '{split}'; known: test"):
        load_problems("math500", split)


@pytest.mark.parametrize("name", HUB_DATASETS)
def test_unreachable(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DPCInterpError, match=f"{name} cannot be fetched.*give the path") as caught:
        load_problems(name, n=3)
    assert "\n" not in str(caught.value)


def test_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DPCInterpError, match="gsm8k needs the package datasets; pip install datasets"):
        load_problems("gsm8k", n=3)


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
    """In a separate process: the clients read the address of the Hub when they are imported."""
    env = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, check=True)
    lines = [line.partition(" ") for line in process.stdout.splitlines()]
    assert len(lines) == 2
    assert "gsm8k cannot be fetched" in lines[0][2]
    assert "someone/story-prompt" in lines[1][2]
    assert "cannot be fetched" in lines[1][2]
    assert all(float(seconds) < 10 for seconds, _, _ in lines)


def test_without_a_network_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert problem.rationale == "He has 9+8=17 pens.\n#### 17"
