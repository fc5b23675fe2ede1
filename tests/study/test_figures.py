"""Which prompts `make figures` draws; its files are tested in `test_commands.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpc_interp.evaluation.methods import SHARED_METHODS
from dpc_interp.study import figures
from dpc_interp.study.study import Study, StudySettings


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
