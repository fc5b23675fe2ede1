"""`make verdicts` in small: every figure, table and verdict is there, from problems that calibrated nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp.evaluation.verdicts import CLAIMS
from dpc_interp.tasks.problems import SPLITS, SYNTHETIC

FIGURES = ("fig8_sink_control", "fig9_triggers", "fig10_causal", "fig11_sensitivity", "fig11_single_tokens")
TABLES = ("tab3_triggers", "tab4_regression", "tab5_corruptions", "verdicts")
COMMITTED = sorted((Path(__file__).parent.parent / "figures").glob("*/provenance.json"))


def draw(folder: Path) -> None:
    """The command on one task, two prompts and few problems."""
    command = [sys.executable, "-m", "dpc_interp.controls", "--tasks", "algebra", "--seeds", "2"]
    command += ["--n", "30", "--n-validation", "30", "--n-causal", "20", "--out", str(folder / "reasoner")]
    command += ["--runs", str(folder / "runs")]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    draw(folder)
    return folder


def test_every_figure_and_table_has_its_files(drawn: Path) -> None:
    for name in FIGURES:
        files = {file.suffix for file in (drawn / "reasoner").glob(f"{name}.*")}
        assert {".png", ".pdf"} < files
        assert files & {".csv", ".parquet"}
    for name in TABLES:
        assert len(pd.read_csv(drawn / "reasoner" / f"{name}.csv"))
    page = (drawn / "VERDICTS.md").read_text()
    assert all(f"- {claim.name}. {claim.says}" in page for claim in CLAIMS)


def test_nothing_is_cut_off(drawn: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(drawn / "reasoner") == []


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_nothing_is_cut_off_in_the_repository(file: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(file.parent) == []


def test_verdicts_state_effect_interval_n_seeds_and_figure(drawn: Path) -> None:
    found = pd.read_csv(drawn / "reasoner" / "verdicts.csv")
    assert set(found["verdict"]) <= {"holds", "fails", "undecided"}
    measured = found[found["n_prompts"] > 0]
    assert set(measured["claim"]) >= {"C1", "C1 own", "C3", "C5"}
    assert (measured["low"] <= measured["effect"]).all()
    assert (measured["effect"] <= measured["high"]).all()
    assert measured["n"].between(1, 30).all()
    drawn_or_made_by_figures = {claim.figure for claim in CLAIMS}
    assert set(found["figure"]) <= drawn_or_made_by_figures


def test_a_stopped_run_goes_on_and_a_second_writes_the_same_bytes(drawn: Path) -> None:
    before = {file: file.read_bytes() for file in (drawn / "reasoner").rglob("*.*")}
    stages = {file: file.stat().st_mtime_ns for file in (drawn / "runs").rglob("*.parquet")}
    lost = next(file for file in sorted(stages) if file.parts[-3].startswith("sinks-"))
    shutil.rmtree(lost.parents[1])
    draw(drawn)
    assert [file.name for file in before if file.read_bytes() != before[file]] == []
    now = {file: file.stat().st_mtime_ns for file in (drawn / "runs").rglob("*.parquet")}
    assert {file for file in now if now[file] != stages[file]} == {lost}


def check(provenance: Path) -> None:
    """No reported problem calibrated or selected anything, and each is of the split that its hash says."""
    for task, told in json.loads(provenance.read_text()).items():
        calibrated, reported = set(told["calibrated_on"]), set(told["reported_on"])
        assert calibrated
        assert reported
        assert not calibrated & reported
        assert told["alpha"]
        assert told["selected"]
        if task in SYNTHETIC:
            buckets = {split: {bucket(name) for name in names} for split, names in told.items() if split[-3:] == "_on"}
            assert max(buckets["reported_on"]) < 100
            assert min(buckets["reported_on"]) >= SPLITS["train"] + SPLITS["validation"]
            assert min(buckets["calibrated_on"]) >= SPLITS["train"]
            assert max(buckets["calibrated_on"]) < SPLITS["train"] + SPLITS["validation"]


def bucket(name: str) -> int:
    """What decides the split of a synthetic problem: the hash in its id."""
    return int(name.rpartition("-")[2], 16) % 100


def test_nothing_reported_was_selected_on_the_test_split(drawn: Path) -> None:
    check(drawn / "reasoner" / "provenance.json")


@pytest.mark.parametrize("provenance", COMMITTED, ids=lambda path: path.parent.name)
def test_nothing_committed_was_selected_on_the_test_split(provenance: Path) -> None:
    check(provenance)


def test_there_are_committed_verdicts() -> None:
    assert COMMITTED
