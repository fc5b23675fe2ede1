"""The page that lists figures and tables; `make figures` is tested in `test_commands.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpc_interp.study.evaluated import EvaluatedPrompt, StudyTask
from dpc_interp.study.figure_page import write_figure_page


@pytest.fixture
def task(study: EvaluatedPrompt) -> StudyTask:
    return StudyTask("algebra", [run.problem for run in study.results.runs], [], [study.prompt])


def test_the_page_has_sizes_tables_and_captions(study: EvaluatedPrompt, task: StudyTask, tmp_path: Path) -> None:
    half = replace(task, validation=task.test[:12])
    page = write_figure_page("mine", [half], [study], {"algebra": ["fig1_case: a case."]}, tmp_path)
    text = page.read_text()
    assert text.startswith("# Figures of mine\n\n24 test problems a task, 12 validation problems")
    assert "prompts seed0" in text
    assert "## tab1_accuracy" in text
    assert "## Figures of algebra\n\n- fig1_case: a case." in text
