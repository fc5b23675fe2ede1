"""One evaluated prompt: what is evaluated, its layers, and the answers that all prompts of a task share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import Options, Results, RunConfig
from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.evaluation.methods import METHODS, SHARED_METHODS, TRIGGERED
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study import evaluated
from dpc_interp.study.evaluated import (
    EvaluatedPrompt,
    StudySettings,
    StudyTask,
    add_shared_answers,
    folder_name,
    sizes_of,
)


@pytest.fixture
def task(study: EvaluatedPrompt) -> StudyTask:
    problems = [run.problem for run in study.results.runs]
    return StudyTask("algebra", problems[:3], problems[3:5], [study.prompt])


def test_layers_are_thirds_of_the_model_unless_options_name_others(study: EvaluatedPrompt) -> None:
    assert (study.shallow, study.deep) == (shallow_layers(6), deep_layers(6)) == ((0, 1), (4, 5))
    other = replace(study, results=replace(study.results, options=Options(shallow=[2], deep=[3])))
    assert (other.shallow, other.deep) == ((2,), (3,))


def test_sizes_are_those_of_all_tasks(task: StudyTask) -> None:
    assert sizes_of([task]) == ("3", "2")
    assert sizes_of([task, replace(task, test=task.test[:1])]) == ("1, 3", "2")


@pytest.mark.parametrize("with_shared", [True, False])
def test_only_one_prompt_of_a_task_has_the_methods_that_do_not_read_it(
    with_shared: bool,
    model: HookedModel,
    study: EvaluatedPrompt,
    task: StudyTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def record(given, problems, prompt, methods, **options) -> Results:
        assert given is model
        calls.append((prompt.name, problems, methods, options["validation"], options["options"], options["run"].out))
        return study.results

    monkeypatch.setattr(evaluated, "evaluate", record)
    settings = StudySettings(tmp_path, Options(gamma=7), RunConfig())
    assert settings.evaluate(model, task, study.prompt, with_shared=with_shared).results is study.results
    unshared = ["cut_off", "pt", *TRIGGERED]
    methods = ["bare", "instruct", "random_prompt", *unshared] if with_shared else unshared
    out = tmp_path / "algebra-algebra-seed0"
    assert calls == [("algebra/seed0", task.test, methods, task.validation, Options(gamma=7), out)]


def test_a_job_of_a_process_runs_in_it(tmp_path: Path) -> None:
    run = StudySettings(tmp_path, Options(), RunConfig(engine="processes", n_workers=2)).run_in("a")
    assert (run.engine, run.n_workers, run.out, run.speculate_from_gold) == ("local", None, tmp_path / "a", True)
    assert StudySettings(None, Options(), RunConfig()).run_in("a").out is None


def test_shared_answers_are_added_to_the_other_prompts(study: EvaluatedPrompt) -> None:
    instances = study.results.instances
    second = instances[~instances["method"].isin(SHARED_METHODS)].assign(prompt="algebra/seed1")
    other = replace(study, results=replace(study.results, instances=second))
    assert add_shared_answers(study, study) is study
    completed = add_shared_answers(other, study).results
    assert completed.instances["method"].unique().tolist() == list(METHODS)
    assert set(completed.instances["prompt"]) == {"algebra/seed1"}
    summary = completed.summary.set_index("method")
    for method in SHARED_METHODS:
        added = completed.instances[completed.instances["method"] == method]
        expected = instances[instances["method"] == method]
        assert added["instance"].tolist() == expected["instance"].tolist()
        assert added["correct"].tolist() == expected["correct"].tolist()
        assert summary.loc[method, "accuracy"] == expected["correct"].mean()
    pd.testing.assert_frame_equal(other.results.instances, second)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("story", "story/seed0"), "story-story-seed0"),
        (("a b", "../c"), "a-b-..-c"),
        (("..",), "unnamed"),
        (("数",), "数"),
    ],
)
def test_names_of_folders_hold_no_separator(parts: tuple[str, ...], name: str) -> None:
    assert folder_name(*parts) == name
