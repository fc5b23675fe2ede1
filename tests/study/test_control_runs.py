"""The job of the controls: it uses as many problems as its sizes state, and does no finished work again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp.analysis.controls import CONDITIONS, sink_controls
from dpc_interp.analysis.options import Options
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.study.control_runs import ControlResults, ControlSizes, RunControls
from dpc_interp.study.evaluated import EvaluatedPrompt, StudySettings, StudyTask

SIZES = ControlSizes(n_sinks=3)


@pytest.fixture(scope="module")
def job(study: EvaluatedPrompt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunControls]:
    """A job whose evaluation is the study of `conftest.py`."""

    def evaluated(
        self: StudySettings, model: HookedModel, task: StudyTask, prompt: SoftPrompt, *, with_shared: bool
    ) -> EvaluatedPrompt:
        assert (task.name, prompt, with_shared) == (study.task, study.prompt, False)
        return study

    settings = StudySettings(tmp_path_factory.mktemp("runs"), Options(), RunConfig())
    task = StudyTask(study.task, [run.problem for run in study.results.runs], [], [study.prompt])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudySettings, "evaluate", evaluated)
        yield RunControls(settings, task, study.prompt, SIZES, with_sweeps=False)


@pytest.fixture(scope="module")
def controls(job: RunControls, reasoner: HookedModel) -> ControlResults:
    return job(reasoner)


def stages(job: RunControls) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in job.settings.folder.rglob("*.parquet")}


def test_sinks_are_those_of_the_first_runs(
    controls: ControlResults, study: EvaluatedPrompt, reasoner: HookedModel
) -> None:
    runs = study.results.runs[: SIZES.n_sinks]
    expected = sink_controls(reasoner, runs, study.prompt, progress=False)
    pd.testing.assert_frame_equal(controls.sinks, expected, check_dtype=False)
    assert set(controls.sinks["condition"]) == set(CONDITIONS)
    assert controls.sinks["instance"].nunique() == 3


def test_without_sweeps_the_long_computations_are_left_out(controls: ControlResults) -> None:
    assert controls.effects is None
    assert controls.sweeps is None


def test_finished_frames_are_read(controls: ControlResults, job: RunControls, reasoner: HookedModel) -> None:
    before = stages(job)
    assert len(before) == 1
    pd.testing.assert_frame_equal(job(reasoner).sinks, controls.sinks, check_dtype=False)
    assert stages(job) == before


def test_lost_frames_are_computed_again(controls: ControlResults, job: RunControls, reasoner: HookedModel) -> None:
    before = stages(job)
    (file,) = before
    shutil.rmtree(file.parents[1])
    pd.testing.assert_frame_equal(job(reasoner).sinks, controls.sinks, check_dtype=False)
    assert stages(job).keys() == before.keys()
