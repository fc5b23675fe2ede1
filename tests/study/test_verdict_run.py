"""`make verdicts` on a small scale: every file is written, from problems that calibrated and selected nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp.claims.verdicts import CLAIMS
from dpc_interp.evaluation.sweeps import SWEPT_VALUES, VARIANTS
from dpc_interp.study import control_runs, verdict_run
from dpc_interp.study.verdict_run import write_control_tables
from dpc_interp.tasks.problem import SPLITS
from dpc_interp.tasks.registry import SYNTHETIC

FIGURES = ("fig8_sink_control", "fig9_triggers", "fig10_causal", "fig11_sensitivity", "fig11_single_tokens", "regime")
TABLES = ("tab3_triggers", "tab4_regression", "tab5_corruptions", "verdicts", "verdicts_by_prompt", "regime")
COMMITTED = sorted((Path(__file__).parents[2] / "figures").glob("*/provenance.json"))


FEW = {
    "corruption_variants": {
        "variants": {name: VARIANTS[name] for name in ("accumulation token", "noise", "knock-out, deep")}
    },
    "option_sensitivity": {
        "values": {option: SWEPT_VALUES[option][:2] for option in ("alpha_offset", "gamma", "target")}
    },
}
"""Options of the sweeps that make them short."""


def run_here(folder: Path) -> None:
    """Run the command in this process: one task, two prompts, few problems, variants and values."""
    options = ["--tasks", "algebra", "--seeds", "2", "--n", "30", "--n-validation", "30"]
    options += ["--n-causal", "3", "--n-sweep", "6", "--n-heads", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_run, "map_processes", lambda jobs, desc: [job() for job in jobs])
        for name, values in FEW.items():
            patch.setattr(control_runs, name, partial(getattr(control_runs, name), **values))
        patch.setattr(
            sys, "argv", ["verdicts", *options, "--out", str(folder / "reasoner"), "--runs", str(folder / "runs")]
        )
        verdict_run.main()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    run_here(folder)
    return folder


def test_every_figure_and_table_has_its_files(written: Path) -> None:
    for name in FIGURES:
        assert {file.suffix for file in (written / "reasoner").glob(f"{name}.*")} >= {".png", ".pdf"}
    for name in TABLES:
        table = pd.read_csv(written / "reasoner" / f"{name}.csv")
        assert len(table) > 0
        assert len(pd.read_parquet(written / "reasoner" / f"{name}.parquet")) == len(table)


def test_figures_are_within_their_pages(written: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(written / "reasoner") == []


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_committed_figures_are_within_their_pages(file: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(file.parent) == []


def test_verdicts_state_effect_interval_counts_and_figure(written: Path) -> None:
    verdicts = pd.read_csv(written / "reasoner" / "verdicts.csv")
    assert set(verdicts["claim"]) == {claim.name for claim in CLAIMS}
    assert set(verdicts["verdict"]) <= {"holds", "fails", "undecided", "not testable"}
    assert ((verdicts["verdict"] == "not testable") == verdicts["reason"].notna()).all()
    measured = verdicts[verdicts["n_prompts"] > 0]
    assert set(measured["claim"]) >= {"C1", "C1 own", "C3", "C5"}
    assert (measured["low"] <= measured["effect"]).all()
    assert (measured["effect"] <= measured["high"]).all()
    assert measured["n"].between(1, 30).all()
    figures = {claim.name: claim.figure for claim in CLAIMS}
    assert (verdicts["figure"] == verdicts["claim"].map(figures)).all()


def test_verdicts_by_prompt_follow_from_their_intervals(written: Path) -> None:
    claims = pd.read_csv(written / "reasoner" / "verdicts_by_prompt.csv")
    assert (claims.groupby("claim").size() == 2).all(), "one row for each prompt"
    assert claims["prompt"].nunique() == 2
    pooled = pd.read_csv(written / "reasoner" / "verdicts.csv").query("n_prompts == 2").set_index("claim")["effect"]
    means = claims.groupby("claim")["effect"].mean()
    assert means[pooled.index].to_numpy() == pytest.approx(pooled.to_numpy(), rel=1e-4, abs=1e-6), "of the two prompts"
    measured = claims[claims["n_prompts"] > 0]
    sign = measured["side"].map({"above": 1, "below": -1})
    ends = pd.concat([sign * (measured[end] - measured["null"]) for end in ("low", "high")], axis=1)
    assert (ends.min(axis=1)[measured["verdict"] == "holds"] > 0).all()
    assert (ends.max(axis=1)[measured["verdict"] == "fails"] < 0).all()
    undecided = measured["verdict"] == "undecided"
    assert (ends.min(axis=1)[undecided] <= 0).all()
    assert (ends.max(axis=1)[undecided] >= 0).all()
    assert ((claims["verdict"] == "not testable") == claims["reason"].notna()).all()
    assert (claims.loc[claims["n_prompts"] == 0, "verdict"] == "not testable").all()


def test_the_regime_is_measured_with_every_prompt(written: Path) -> None:
    """The second prompt has the answers of the methods that do not read it from the first."""
    (row,) = pd.read_csv(written / "reasoner" / "regime.csv").to_dict("records")
    assert (row["task"], row["n"], row["n_prompts"]) == ("algebra", 30, 2)
    assert pd.Series(row).notna().all()
    for share in ("bare", "instruct", "pt", "helped", "harmed", "late_texts"):
        assert 0 <= row[f"{share}_low"] <= row[share] <= row[f"{share}_high"] <= 1
    assert row["helped"] - row["harmed"] == pytest.approx(row["pt"] - row["instruct"], abs=1e-5)
    assert row["n_helped"] == pytest.approx(row["helped"] * 60, abs=1e-3)


def test_page_states_the_verdict_of_each_claim(written: Path) -> None:
    page = (written / "VERDICTS.md").read_text()
    for row in pd.read_csv(written / "reasoner" / "verdicts.csv").itertuples():
        (line,) = [line for line in page.splitlines() if line.startswith(f"- {row.claim}. ")]
        assert f"**{row.verdict}** on {row.task}" in line


def test_interrupted_run_resumes_and_writes_the_same_bytes(written: Path) -> None:
    before = {file: file.read_bytes() for file in (written / "reasoner").rglob("*.*")}
    stages = {file: file.stat().st_mtime_ns for file in (written / "runs").rglob("*.parquet")}
    lost = next(file for file in sorted(stages) if file.parts[-3].startswith("sinks-"))
    shutil.rmtree(lost.parents[1])
    run_here(written)
    assert [file.name for file in before if file.read_bytes() != before[file]] == []
    now = {file: file.stat().st_mtime_ns for file in (written / "runs").rglob("*.parquet")}
    assert {file for file in now if now[file] != stages[file]} == {lost}


def check_provenance(file: Path) -> None:
    """Check that no reported problem calibrated or selected anything, and that each is of the split of its hash."""
    for task, record in json.loads(file.read_text()).items():
        calibrated, reported = set(record["calibrated_on"]), set(record["reported_on"])
        assert calibrated
        assert reported
        assert not calibrated & reported
        assert record["alpha"]
        assert record["selected"]
        if task in SYNTHETIC:
            assert all(SPLITS["train"] <= bucket(name) < SPLITS["train"] + SPLITS["validation"] for name in calibrated)
            assert all(SPLITS["train"] + SPLITS["validation"] <= bucket(name) < 100 for name in reported)


def bucket(name: str) -> int:
    """The number that decides the split of a synthetic problem, from the hash in its id."""
    return int(name.rpartition("-")[2], 16) % 100


def test_nothing_reported_was_selected_on_the_test_split(written: Path) -> None:
    check_provenance(written / "reasoner" / "provenance.json")


@pytest.mark.parametrize("file", COMMITTED, ids=lambda path: path.parent.name)
def test_nothing_committed_was_selected_on_the_test_split(file: Path) -> None:
    check_provenance(file)


def test_verdicts_of_both_models_are_committed() -> None:
    assert [file.parent.name for file in COMMITTED] == ["reasoner", "smollm2-135m"]


def test_tables_of_all_tasks_are_one_table(written: Path, tmp_path: Path) -> None:
    stored = {
        key: pd.read_parquet(written / "reasoner" / f"{name}.parquet")
        for name, key in zip(TABLES, ("triggers", "regression", "variants"), strict=False)
    }
    other = {key: frame.assign(task="rule") for key, frame in stored.items()}
    text = write_control_tables([stored, other], tmp_path)
    assert len(text) == 6, "a heading and a table each"
    for name, key in zip(TABLES, stored, strict=False):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert table["task"].value_counts().to_dict() == {"algebra": len(stored[key]), "rule": len(stored[key])}
