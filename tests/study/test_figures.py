"""The job that draws, and the page that lists figures and tables; `make figures` is tested in `test_commands.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpc_interp.models.hooked import HookedModel
from dpc_interp.study import figures
from dpc_interp.study.evaluated import EvaluatedPrompt, StudyTask
from dpc_interp.study.figures import DrawFigures, write_page


@pytest.fixture
def task(study: EvaluatedPrompt) -> StudyTask:
    return StudyTask("algebra", [run.problem for run in study.results.runs], [], [study.prompt])


def test_the_job_draws_into_its_folder(
    study: EvaluatedPrompt, model: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        figures, "draw_figures", lambda part, given, folder: [f"{part.prompt.name} in {folder.name}"] * (given is model)
    )
    assert DrawFigures(study, tmp_path / "out")(model) == ["algebra/seed0 in out"]


def test_the_page_has_sizes_tables_and_captions(study: EvaluatedPrompt, task: StudyTask, tmp_path: Path) -> None:
    half = replace(task, validation=task.test[:12])
    page = write_page("mine", [half], [study], {"algebra": ["fig1_case: a case."]}, tmp_path)
    text = page.read_text()
    assert text.startswith("# Figures of mine\n\n24 test problems a task, 12 validation problems")
    assert "prompts seed0" in text
    assert "## tab1_accuracy" in text
    assert "## Figures of algebra\n\n- fig1_case: a case." in text
