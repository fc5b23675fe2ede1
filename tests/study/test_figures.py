"""`make figures` on a small scale: every file is written, and a second run, in one process, writes the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp.evaluation.methods import SHARED_METHODS
from dpc_interp.study import figures
from dpc_interp.study.study import Study, StudySettings

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


def command_line(folder: Path) -> list[str]:
    """Options for one task and few problems."""
    options = ["--tasks", "algebra", "--seeds", "2", "--n", "32", "--n-validation", "32"]
    return [*options, "--out", str(folder / "figures"), "--runs", str(folder / "runs")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of two runs that share no stage: the command as `make` runs it, and one in this process."""
    command, here = tmp_path_factory.mktemp("command"), tmp_path_factory.mktemp("here")
    arguments = [sys.executable, "-m", "dpc_interp.study.figures", *command_line(command)]
    subprocess.run(arguments, check=True, capture_output=True, env=os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "map_processes", lambda jobs, desc: [job() for job in jobs])
        patch.setattr(sys, "argv", ["figures", *command_line(here)])
        figures.main()
    return command / "figures", here / "figures"


def test_every_figure_and_table_has_its_files(written: tuple[Path, Path]) -> None:
    for name in NAMES:
        assert {file.suffix for file in written[0].glob(f"{name}.*")} >= {".png", ".pdf"}
    for name in ("tab1_accuracy", "tab2_ablation"):
        table = pd.read_csv(written[0] / f"{name}.csv")
        assert len(pd.read_parquet(written[0] / f"{name}.parquet")) == len(table) > 0


def test_figures_are_within_their_pages(written: tuple[Path, Path], cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(written[0]) == []


def test_two_runs_write_the_same_bytes(written: tuple[Path, Path]) -> None:
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in written)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_table_states_n_prompts_and_intervals(written: tuple[Path, Path]) -> None:
    table = pd.read_csv(written[0] / "tab1_accuracy.csv")
    methods = {"bare", "instruct", "random_prompt", "pt", "random", "always", "dpc", "oracle"}
    assert set(table["method"]) == methods
    assert (table["n_prompts"] == 2).all()
    assert (table["n"] == 32 * table["n_prompts"]).all()
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_captions_state_the_thresholds_and_their_split(written: tuple[Path, Path]) -> None:
    text = (written[0] / "README.md").read_text()
    captions = [line for line in text.splitlines() if line.startswith(("- fig6_trigger", "- fig7_cooccurrence"))]
    assert len(captions) == 2
    for caption in captions:
        assert re.search(r"alpha: late_share > [01]\.\d{3} \(criterion youden, validation split, n = 32\)", caption)


def test_first_prompt_of_each_task_is_drawn(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task is drawn in the folder itself, the others in subfolders; other prompts only add answers."""
    instances = study.results.instances

    def evaluated(self: StudySettings, task: str, prompt: str, *, with_shared: bool) -> Study:
        rows = instances if with_shared else instances[~instances["method"].isin(SHARED_METHODS)]
        results = replace(study.results, instances=rows.assign(prompt=prompt, task=task))
        return replace(study, task=task, prompt=prompt, results=results)

    monkeypatch.setattr(StudySettings, "evaluate", evaluated)
    monkeypatch.setattr(figures, "draw_figures", lambda study, folder: [f"{study.prompt} in {folder.name}"])
    monkeypatch.setattr(figures, "map_processes", lambda jobs, desc: [job() for job in jobs])
    prompts = {"algebra": ["a0", "a1"], "rule": ["r0", "r1"]}
    settings = StudySettings("reasoner", 24, 24, 24, tmp_path)
    studies, captions = figures.run_studies(settings, prompts, tmp_path / "out")
    assert [(study.task, study.prompt) for study in studies] == [
        (task, prompt) for task, names in prompts.items() for prompt in names
    ]
    assert captions == {"algebra": ["a0 in out"], "rule": ["r0 in rule"]}
    for completed in studies:
        shared = completed.results.instances.query("method in @SHARED_METHODS")
        assert shared.groupby("method").size().to_dict() == dict.fromkeys(SHARED_METHODS, 24)
        assert set(shared["prompt"]) == {completed.prompt}
