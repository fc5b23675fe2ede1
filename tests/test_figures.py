"""`make figures` in small: every file is there, a second run writes the same bytes, and its text is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

NAMES = (
    "fig1_case",
    "fig2_saliency_maps",
    "fig3_accumulation",
    "fig4_layer_flow",
    "fig5_step_flow",
    "fig6_trigger",
    "fig7_cooccurrence",
    "tab1_accuracy",
    "tab2_ablation",
)


def draw(out: Path, runs: Path) -> None:
    command = [sys.executable, "-m", "dpc_interp.figures", "--tasks", "algebra", "--n", "48", "--n-validation", "48"]
    subprocess.run([*command, "--out", str(out), "--runs", str(runs)], check=True, capture_output=True, env=os.environ)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that share nothing."""
    folders = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for folder in folders:
        draw(folder / "figures", folder / "runs")
    return folders[0] / "figures", folders[1] / "figures"


def test_every_figure_and_table_has_its_files(drawn: tuple[Path, Path]) -> None:
    for name in NAMES:
        files = {file.suffix for file in drawn[0].glob(f"{name}.*")}
        assert {".png", ".pdf"} < files
        assert files & {".csv", ".parquet"}


def test_nothing_is_cut_off(drawn: tuple[Path, Path], cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(drawn[0]) == []


def test_two_runs_write_the_same_bytes(drawn: tuple[Path, Path]) -> None:
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in drawn)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_tables_state_n_prompts_intervals_and_the_calibration_split(drawn: tuple[Path, Path]) -> None:
    table = pd.read_csv(drawn[0] / "tab1_accuracy.csv")
    assert set(table["method"]) == {"base", "pt", "random", "always", "dpc", "oracle"}
    assert (table["n_prompts"] >= 3).all()
    assert (table["n"] == 48 * table["n_prompts"]).all()
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    text = (drawn[0] / "README.md").read_text()
    assert "validation split, n = " in text
    for claim in ("C1", "C2", "C3", "C4", "C5"):
        assert claim in text


def test_claims_follow_from_their_intervals(drawn: tuple[Path, Path]) -> None:
    claims = pd.read_csv(drawn[0] / "claims.csv")
    assert (claims.groupby("claim").size() == 3).all(), "one row a prompt"
    measured = claims[claims["n_prompts"] > 0]
    sign = measured["side"].map({"above": 1, "below": -1})
    ends = sign * (measured["low"] - measured["null"]), sign * (measured["high"] - measured["null"])
    nearest, farthest = pd.concat(ends, axis=1).min(axis=1), pd.concat(ends, axis=1).max(axis=1)
    assert (nearest[measured["verdict"] == "holds"] > 0).all()
    assert (farthest[measured["verdict"] == "fails"] <= 0).all()
    assert (nearest[measured["verdict"] == "undecided"] <= 0).all()
    assert (farthest[measured["verdict"] == "undecided"] >= 0).all()
