"""`make figures` and then `make verdicts` on a small scale: every file is written, and a second run writes its bytes.

The second command finds the stages of the first. Problems that calibrated or selected something are not reported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import RunConfig, cli
from dpc_interp.claims.verdicts import CLAIMS
from dpc_interp.execution.engine import LocalEngine
from dpc_interp.study.control_page import write_control_tables

FIGURES = (
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
CONTROLS = ("fig8_sink_control", "fig9_triggers", "fig10_causal", "fig11_sensitivity", "fig11_single_tokens", "regime")
TABLES = (
    "tab3_triggers",
    "tab4_regression",
    "tab5_corruptions",
    "tab6_mixed_models",
    "verdicts",
    "verdicts_by_prompt",
    "regime",
)
OPTIONS = ("--tasks", "algebra", "--seeds", "2", "--n", "30", "--n-validation", "30")
"""Of both commands: one task, two prompts, few problems."""
SIZES = ("--n-causal", "3", "--n-sweep", "6", "--n-heads", "2")


def folders(folder: Path) -> list[str]:
    return ["--out", str(folder / "reasoner"), "--runs", str(folder / "runs")]


def run_here(command: str, arguments: list[str]) -> None:
    """Run a command in this process, its jobs one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunConfig, "open_engine", lambda run: nullcontext(LocalEngine()))
        with pytest.raises(SystemExit) as end:
            cli.main([command, *OPTIONS, *arguments])
    assert not end.value.code


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of `make figures` that share no stage: the command as `make` runs it, and one in this process."""
    command, here = tmp_path_factory.mktemp("command"), tmp_path_factory.mktemp("here")
    arguments = [sys.executable, "-m", "dpc_interp.cli", "figures", *OPTIONS, *folders(command)]
    subprocess.run(arguments, check=True, capture_output=True, env=os.environ)
    run_here("figures", folders(here))
    return command / "reasoner", here / "reasoner"


@pytest.fixture(scope="module")
def judged(drawn: tuple[Path, Path], few_sweeps: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `make verdicts` after `make figures`."""
    folder = tmp_path_factory.mktemp("controls")
    shutil.copytree(drawn[1].parent / "runs", folder / "runs")
    run_here("verdicts", [*SIZES, *folders(folder)])
    return folder


def test_every_figure_of_the_paper_and_table_has_its_files(drawn: tuple[Path, Path]) -> None:
    for name in FIGURES:
        assert {file.suffix for file in drawn[0].glob(f"{name}.*")} >= {".png", ".pdf"}
    for name in ("tab1_accuracy", "tab2_ablation"):
        table = pd.read_csv(drawn[0] / f"{name}.csv")
        assert len(pd.read_parquet(drawn[0] / f"{name}.parquet")) == len(table) > 0


def test_figures_are_within_their_pages(drawn: tuple[Path, Path], cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(drawn[0]) == []


def test_two_runs_write_the_same_bytes(drawn: tuple[Path, Path]) -> None:
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in drawn)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_table_states_n_prompts_and_intervals(drawn: tuple[Path, Path]) -> None:
    table = pd.read_csv(drawn[0] / "tab1_accuracy.csv")
    methods = {"bare", "instruct", "random_prompt", "pt", "random", "always", "dpc", "oracle"}
    assert set(table["method"]) == methods
    assert (table["n_prompts"] == 2).all()
    assert (table["n"] == 30 * table["n_prompts"]).all()
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_captions_state_the_thresholds_and_their_split(drawn: tuple[Path, Path]) -> None:
    text = (drawn[0] / "README.md").read_text()
    captions = [line for line in text.splitlines() if line.startswith(("- fig6_trigger", "- fig7_cooccurrence"))]
    assert len(captions) == 2
    for caption in captions:
        assert re.search(r"alpha: late_share > [01]\.\d{3} \(criterion youden, validation split, n = 30\)", caption)


def test_every_figure_of_the_controls_and_table_has_its_files(judged: Path) -> None:
    for name in CONTROLS:
        assert {file.suffix for file in (judged / "reasoner").glob(f"{name}.*")} >= {".png", ".pdf"}
    for name in TABLES:
        table = pd.read_csv(judged / "reasoner" / f"{name}.csv")
        assert len(table) > 0
        assert len(pd.read_parquet(judged / "reasoner" / f"{name}.parquet")) == len(table)


def test_figures_of_the_controls_are_within_their_pages(judged: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(judged / "reasoner") == []


def test_verdicts_compute_no_stage_of_the_figures_again(drawn: tuple[Path, Path], judged: Path) -> None:
    runs = drawn[1].parent / "runs"
    stages = [file.relative_to(runs) for file in runs.rglob("*.parquet")]
    assert stages
    for stage in stages:  # a copied file keeps its time, one that is computed again does not
        assert (judged / "runs" / stage).stat().st_mtime_ns == (runs / stage).stat().st_mtime_ns
        prompt, _, name = str(stage.parent.parent).rpartition("/")
        keys = f"{name.rpartition('-')[0]}-*"
        first, then = ({file.name for file in (folder / prompt).glob(keys)} for folder in (runs, judged / "runs"))
        assert first == then, "nor under a new key"


def test_verdicts_state_effect_interval_counts_and_figure(judged: Path) -> None:
    verdicts = pd.read_csv(judged / "reasoner" / "verdicts.csv")
    assert set(verdicts["claim"]) == {claim.name for claim in CLAIMS}
    assert set(verdicts["verdict"]) <= {"holds", "fails", "undecided", "not testable"}
    assert ((verdicts["verdict"] == "not testable") == verdicts["reason"].notna()).all()
    measured = verdicts[verdicts["n_prompts"] > 0]
    assert set(measured["claim"]) >= {"C1", "C1 own", "C3", "C5"}
    assert (measured["low"] <= measured["effect"]).all()
    assert (measured["effect"] <= measured["high"]).all()
    assert measured["n"].between(1, 30).all()
    drawn = {claim.name: claim.figure for claim in CLAIMS}
    assert (verdicts["figure"] == verdicts["claim"].map(drawn)).all()


def test_verdicts_by_prompt_follow_from_their_intervals(judged: Path) -> None:
    claims = pd.read_csv(judged / "reasoner" / "verdicts_by_prompt.csv")
    assert (claims.groupby("claim").size() == 2).all(), "one row for each prompt"
    assert claims["prompt"].nunique() == 2
    pooled = pd.read_csv(judged / "reasoner" / "verdicts.csv").query("n_prompts == 2").set_index("claim")["effect"]
    means = claims.groupby("claim")["effect"].mean()
    assert means[pooled.index].to_numpy() == pytest.approx(pooled.to_numpy(), rel=1e-4, abs=1e-6), "of the two prompts"
    measured = claims[(claims["n_prompts"] > 0) & (claims["side"] != "within")]
    sign = measured["side"].map({"above": 1, "below": -1})
    ends = pd.concat([sign * (measured[end] - measured["null"]) for end in ("low", "high")], axis=1)
    assert (ends.min(axis=1)[measured["verdict"] == "holds"] > 0).all()
    assert (ends.max(axis=1)[measured["verdict"] == "fails"] < 0).all()
    undecided = measured["verdict"] == "undecided"
    assert (ends.min(axis=1)[undecided] <= 0).all()
    assert (ends.max(axis=1)[undecided] >= 0).all()
    assert ((claims["verdict"] == "not testable") == claims["reason"].notna()).all()
    assert (claims.loc[claims["n_prompts"] == 0, "verdict"] == "not testable").all()


def test_the_regime_is_measured_with_every_prompt(judged: Path) -> None:
    """The second prompt has the answers of the methods that do not read it from the first."""
    (row,) = pd.read_csv(judged / "reasoner" / "regime.csv").to_dict("records")
    assert (row["task"], row["n"], row["n_prompts"]) == ("algebra", 30, 2)
    assert pd.Series(row).notna().all()
    for share in ("bare", "instruct", "pt", "helped", "harmed", "late_texts"):
        assert 0 <= row[f"{share}_low"] <= row[share] <= row[f"{share}_high"] <= 1
    assert row["helped"] - row["harmed"] == pytest.approx(row["pt"] - row["instruct"], abs=1e-5)
    assert row["n_helped"] == pytest.approx(row["helped"] * 60, abs=1e-3)


def test_page_states_the_verdict_of_each_claim(judged: Path) -> None:
    page = (judged / "VERDICTS.md").read_text()
    for row in pd.read_csv(judged / "reasoner" / "verdicts.csv").itertuples():
        (line,) = [line for line in page.splitlines() if line.startswith(f"- {row.claim}. ")]
        assert f"**{row.verdict}** on {row.task}" in line


def test_interrupted_run_resumes_and_writes_the_same_bytes(judged: Path) -> None:
    before = {file: file.read_bytes() for file in (judged / "reasoner").rglob("*.*")}
    stages = {file: file.stat().st_mtime_ns for file in (judged / "runs").rglob("*.parquet")}
    lost = next(file for file in sorted(stages) if file.parts[-3].startswith("sinks-"))
    shutil.rmtree(lost.parents[1])
    run_here("verdicts", [*SIZES, *folders(judged)])
    assert [file.name for file in before if file.read_bytes() != before[file]] == []
    now = {file: file.stat().st_mtime_ns for file in (judged / "runs").rglob("*.parquet")}
    assert {file for file in now if now[file] != stages[file]} == {lost}


def test_tables_of_all_tasks_are_one_table(judged: Path, tmp_path: Path) -> None:
    stored = {
        key: pd.read_parquet(judged / "reasoner" / f"{name}.parquet")
        for name, key in zip(TABLES, ("triggers", "regression", "variants", "mixed"), strict=False)
    }
    other = {key: frame.assign(task="rule") for key, frame in stored.items()}
    text = write_control_tables([stored, other], tmp_path)
    assert len(text) == 8, "a heading and a table each"
    for name, key in zip(TABLES, stored, strict=False):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert table["task"].value_counts().to_dict() == {"algebra": len(stored[key]), "rule": len(stored[key])}


def test_nothing_reported_was_selected_on_the_test_split(
    judged: Path, check_provenance: Callable[[Path], None]
) -> None:
    check_provenance(judged / "reasoner" / "provenance.json")
