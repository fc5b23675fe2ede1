"""The studies of the bundled models: their prompts, problems, and the folder of their stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.bundled.recipes import RECIPES, Recipe
from dpc_interp.bundled.studies import BundledStudy


def test_all_tasks_and_seeds_or_the_chosen_ones(tmp_path: Path) -> None:
    every = BundledStudy(n=3, n_validation=2, runs=tmp_path).open()
    assert every.tasks == list(RECIPES["reasoner"])
    story, recipe = every._tasks[0], RECIPES["reasoner"]["story"]
    assert [prompt.name for prompt in story.prompts] == [f"story/seed{seed}" for seed in range(recipe.n_seeds)]
    assert (len(story.test), len(story.validation)) == (3, 2)
    assert story.test == recipe.load("test", 3, seed=0)
    one = BundledStudy("reasoner", ["rule"], 1, n=3, n_validation=2, runs=tmp_path).open()
    assert (one.tasks, len(one._tasks[0].prompts)) == (["rule"], 1)


def test_models_and_tasks_without_prompts_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DPCInterpError, match=r"unknown task of reasoner 'stroy'.*story"):
        BundledStudy("reasoner", ["stroy"]).open()
    with pytest.raises(DPCInterpError, match=r"unknown model .*'gpt-9'"):
        BundledStudy("gpt-9").open()
    monkeypatch.setattr("dpc_interp.bundled.recipes.RECIPES", {"mine": {"story": Recipe("story")}})
    with pytest.raises(DPCInterpError, match=r"no prompt for mine/story yet; run make prompts MODEL=mine"):
        BundledStudy("mine").open()


def test_stages_of_other_sizes_have_another_folder(tmp_path: Path) -> None:
    def folder(**sizes: int) -> Path:
        return BundledStudy(runs=tmp_path, **{"n": 3, "n_validation": 2, **sizes}).folder

    assert folder().parent == tmp_path
    assert folder().name.startswith("reasoner-3-2-")
    assert len({folder(), folder(n=4), folder(n_validation=3)}) == 3
    assert folder(batch_size=8) == folder(), "results do not depend on the batch size"
