"""Studies: the prompts they use, what they evaluate, and the settings given on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Results
from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.bundled.recipes import RECIPES, Recipe
from dpc_interp.evaluation.methods import METHODS, SHARED_METHODS, TRIGGERED
from dpc_interp.study.study import Study, StudySettings, add_shared_answers, build_parser, prompts_of, read_settings


def test_prompts_of_all_tasks_and_seeds_or_of_the_chosen_ones() -> None:
    every = prompts_of("reasoner", None, None)
    assert list(every) == list(RECIPES["reasoner"])
    assert every["story"] == [f"reasoner/story/seed{seed}" for seed in range(3)]
    assert prompts_of("reasoner", ["rule"], 1) == {"rule": ["reasoner/rule/seed0"]}


def test_models_and_tasks_without_prompts_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DPCInterpError, match=r"unknown task of reasoner 'stroy'.*story"):
        prompts_of("reasoner", ["stroy"], None)
    with pytest.raises(DPCInterpError, match=r"unknown model .*'gpt-9'"):
        prompts_of("gpt-9", None, None)
    monkeypatch.setattr("dpc_interp.bundled.recipes.RECIPES", {"mine": {"story": Recipe("story")}})
    with pytest.raises(DPCInterpError, match=r"no prompt for mine/story yet; run make prompts MODEL=mine"):
        prompts_of("mine", None, None)


def test_layers_are_thirds_of_the_model(study: Study) -> None:
    assert (study.shallow, study.deep) == (shallow_layers(6), deep_layers(6)) == ((0, 1), (4, 5))


def test_stages_of_other_sizes_have_another_folder(tmp_path: Path) -> None:
    settings = StudySettings("reasoner", n=500, n_validation=150, batch_size=256, runs=tmp_path)
    assert settings.folder.parent == tmp_path
    assert settings.folder.name.startswith("reasoner-500-150-")
    folders = {settings.folder, replace(settings, n=400).folder, replace(settings, n_validation=100).folder}
    assert len(folders) == 3
    assert replace(settings, batch_size=8).folder == settings.folder, "results do not depend on the batch size"


@pytest.mark.parametrize("with_shared", [True, False])
def test_only_one_prompt_of_a_task_has_the_methods_that_do_not_read_it(
    with_shared: bool, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def record(model, problems, prompt, methods, **options) -> Results:
        evaluated.append((prompt.name, len(problems), methods))
        return study.results

    monkeypatch.setattr("dpc_interp.study.study.evaluate", record)
    settings = StudySettings("reasoner", n=3, n_validation=2, batch_size=8, runs=tmp_path)
    assert settings.evaluate("algebra", study.prompt, with_shared=with_shared).results is study.results
    unshared = ["cut_off", "pt", *TRIGGERED]
    expected = ["bare", "instruct", "random_prompt", *unshared] if with_shared else unshared
    assert evaluated == [("algebra/seed0", 3, expected)]


def test_shared_answers_are_added_to_the_other_prompts(study: Study) -> None:
    instances = study.results.instances
    second = instances[~instances["method"].isin(SHARED_METHODS)].assign(prompt="algebra/seed1")
    other = replace(study, prompt="reasoner/algebra/seed1", results=replace(study.results, instances=second))
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


def test_command_line_is_read_into_settings() -> None:
    args = build_parser("test").parse_args(["--n", "30", "--n-validation", "20", "--runs", "mine", "--batch-size", "8"])
    assert read_settings(args) == StudySettings("reasoner", 30, 20, 8, Path("mine"))
    assert (args.tasks, args.seeds, args.out) == (None, None, Path("figures/reasoner"))
