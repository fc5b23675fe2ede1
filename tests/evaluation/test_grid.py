"""The settings, columns and manifests of a grid; each stage is computed once, and an interrupted grid resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dpc_interp import DPCInterpError, Options, Problem, ProblemSample, SoftPrompt, ablate
from dpc_interp.analysis.schema import SUMMARY
from dpc_interp.evaluation.grid import TEXT_OPTIONS, Cell, load_prompts, prepare
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.usefixtures("text_is_the_answer")


def test_settings_are_models_times_tasks_times_prompts(
    model: HookedModel, build: Callable[..., HookedModel], prompt: SoftPrompt, problems: list[Problem]
) -> None:
    other_model = build("gqa", seed=1)
    other_model.cfg.model_name = "other"
    other_prompt = SoftPrompt(prompt.vectors + 0.1, "other prompt")
    tasks = [problems[:2], [replace(problem, task="mine") for problem in problems[2:4]]]
    cells = [Cell(Options(max_new_tokens=4), ["always"])]
    settings = prepare([model, other_model], tasks, [prompt, other_prompt], cells, ["test"], ProblemSample())
    names = [(setting.model_name == "other", setting.task, setting.prompt.name) for setting in settings]
    assert names == [
        (is_other, task, name)
        for is_other in (False, True)
        for task in ("story", "mine")
        for name in ("random", "other prompt")
    ]
    assert settings[0].problems == {"test": problems[:2]}, "without a trigger no validation problems are drawn"
    assert len({setting.model_key for setting in settings}) == 2


def test_validation_problems_are_drawn_where_a_cell_calibrates(
    model: HookedModel, prompt: SoftPrompt, problems: list[Problem]
) -> None:
    sample = ProblemSample(n=3, n_validation=4, problem_seed=1)
    cells = [Cell(Options(max_new_tokens=4), ["always"]), Cell(Options(max_new_tokens=4), ["dpc"])]
    (setting,) = prepare(model, "story", prompt, cells, ["test"], sample)
    assert {split: len(drawn) for split, drawn in setting.problems.items()} == {"test": 3, "validation": 4}
    given = replace(sample, validation={"story": problems[:5]})
    (setting,) = prepare(model, "story", prompt, cells, ["test"], given)
    assert setting.problems["validation"] == problems[:5]
    (setting,) = prepare(model, "story", prompt, cells[:1], ["test", "validation"], sample)
    assert len(setting.problems["validation"]) == 4, "the split itself is measured"


def test_columns_are_labels_setting_options_and_summary(grid_arguments: dict[str, Any]) -> None:
    options = {"shallow": [0, 1], "beta": 0.25, "gamma": 25}
    rows = ablate(**grid_arguments, methods=["always"], **options)
    setting = ["model", "task", "prompt", "split", "n_validation"]
    names = [field.name for field in fields(Options) if field.name not in TEXT_OPTIONS]
    assert rows.columns.tolist() == [*setting, *names, "threshold", *SUMMARY, "reason"]
    given = ablate(**grid_arguments, methods=["always"], extraction="flexible", prepend_bos=False)
    assert given[["extraction", "prepend_bos"]].to_numpy().tolist() == [["flexible", False]]
    (row,) = rows.to_dict("records")
    assert (row["task"], row["prompt"], row["split"], row["n_validation"]) == ("story", "random", "test", 0)
    assert (row["shallow"], row["deep"], row["beta"], row["gamma"], row["token"]) == ("0-1", "2", 0.25, 25, "peak")
    assert math.isnan(row["threshold"]), "`always` needs no trigger"


def test_each_cell_has_its_manifest(grid_arguments: dict[str, Any], tmp_path: Path) -> None:
    ablate(**grid_arguments, methods=["always"], grid={"gamma": [10, 25]}, splits=["test", "validation"], out=tmp_path)
    manifests = [json.loads(file.read_text()) for file in tmp_path.glob("cell-*/manifest.json")]
    cells = {(manifest["gamma"], manifest["split"]) for manifest in manifests}
    assert cells == {(10, "test"), (10, "validation"), (25, "test"), (25, "validation")}
    for manifest in manifests:
        assert manifest["methods"] == ["always"]
        assert manifest["contexts"] == {}
        assert manifest["prompt_name"] == "random"
        assert set(manifest["problems"]) == {"test", "validation"}
    assert len({manifest["prompt"] for manifest in manifests}) == 1


def test_each_distinct_stage_is_computed_once(
    grid_arguments: dict[str, Any], calls: dict[str, Any], tmp_path: Path
) -> None:
    grid = {"gamma": [0, 25], "alpha_offset": [-1.0, 0.0, 0.1]}
    first = ablate(**grid_arguments, grid=grid, out=tmp_path)
    assert (calls["generate"], calls["analyse"]) == (3, 2), "pt of both splits, both corruptions; two analyses"
    again = ablate(**grid_arguments, grid=grid, out=tmp_path)
    pd.testing.assert_frame_equal(again, first)
    other_grid = {"gamma": [25, 0], "beta": [None, 1e-3], "statistic": ["nll", "length"]}
    ablate(**grid_arguments, grid=other_grid, out=tmp_path)
    assert (calls["generate"], calls["analyse"]) == (3, 2), "another grid shares the folder"
    ablate(**grid_arguments, grid={"target": ["gold"]}, gamma=25, out=tmp_path)
    assert calls["analyse"] == 4


def test_without_a_folder_stages_are_shared_too(grid_arguments: dict[str, Any], calls: dict[str, Any]) -> None:
    ablate(**grid_arguments, methods=["always"], grid={"seed": [0, 1, 2]})
    assert (calls["generate"], calls["analyse"]) == (2, 1), "no method needs a trigger, so nothing is calibrated"


def test_cells_that_do_not_fill_a_batch_are_computed_together(
    grid_arguments: dict[str, Any], calls: dict[str, Any]
) -> None:
    """With the same rows as one by one."""
    grid = {"gamma": [0, 10, 25], "token": ["peak", 1]}
    together = ablate(**grid_arguments, methods=["always"], grid=grid)
    assert calls["generate"] == 2, "pt, and six corruptions"
    one_by_one = ablate(**grid_arguments, methods=["always"], grid=grid, batch_size=2)
    assert calls["generate"] == 2 + 7
    pd.testing.assert_frame_equal(together, one_by_one)


def test_a_finished_grid_computes_nothing(
    grid_arguments: dict[str, Any], calls: dict[str, Any], tmp_path: Path
) -> None:
    """Also with other shards."""
    arguments = grid_arguments | {"methods": ["always"], "grid": {"gamma": [0, 10]}, "out": tmp_path}
    first = ablate(**arguments)
    calls |= {"generate": 0, "analyse": 0}
    pd.testing.assert_frame_equal(ablate(**arguments, shard_size=2), first)
    assert (calls["generate"], calls["analyse"]) == (0, 0)


def test_an_interrupted_grid_resumes(
    grid_arguments: dict[str, Any], calls: dict[str, Any], tmp_path: Path, unchanged
) -> None:
    grid = {"gamma": [0, 10, 25], "mask": [0.0, 0.5]}
    grid_arguments = grid_arguments | {"batch_size": 2}  # fewer than the problems: no cell is computed with others
    uninterrupted = ablate(**grid_arguments, grid=grid)
    needed = dict(calls)
    calls |= {"generate": 0, "analyse": 0, "stop_at": 5}
    with unchanged(grid_arguments["models"]), pytest.raises(KeyboardInterrupt):
        ablate(**grid_arguments, grid=grid, out=tmp_path)
    assert calls["generate"] == 4
    calls["stop_at"] = None
    pd.testing.assert_frame_equal(ablate(**grid_arguments, grid=grid, out=tmp_path), uninterrupted)
    assert (calls["generate"], calls["analyse"]) == (needed["generate"], needed["analyse"]), "nothing is computed twice"


def test_cells_that_are_computed_together_resume(
    grid_arguments: dict[str, Any], calls: dict[str, Any], tmp_path: Path
) -> None:
    """Interrupted in the third of five shards of their common stage."""
    arguments = grid_arguments | {"methods": ["always"], "grid": {"gamma": [0, 10, 25], "token": ["peak", 1]}}
    uninterrupted = ablate(**arguments)
    calls |= {"generate": 0, "analyse": 0, "stop_at": 4}  # the first shard is that of pt
    with pytest.raises(KeyboardInterrupt):
        ablate(**arguments, out=tmp_path, shard_size=9)
    n_before, calls["stop_at"] = calls["generate"], None
    pd.testing.assert_frame_equal(ablate(**arguments, out=tmp_path, shard_size=9), uninterrupted)
    n_texts = len(list(tmp_path.rglob("*ahead*"))), calls["generate"]
    calls |= {"generate": 0}
    ablate(**arguments, shard_size=9)
    assert (n_before, n_texts) == (3, (1, calls["generate"])), "nothing is computed twice"


def unnamed(model: HookedModel) -> object:
    raise AssertionError("a context that is invalid must not be entered")


INVALID: dict[str, dict[str, Any]] = {
    "unknown method 'magic'": {"methods": ["magic"]},
    "unknown task 'poetry'": {"tasks": ["poetry"]},
    "unknown split 'train'; known: test, validation": {"splits": ["train"]},
    "unknown replacement 'zero'": {"grid": {"replace": ["mask", "zero"]}},
    "unknown head_reduction": {"grid": {"head_reduction": ["max"]}},
    "unknown target": {"grid": {"target": ["silver"]}},
    "unknown token 'tallest'": {"grid": {"token": ["tallest"]}},
    "gamma is 120": {"grid": {"gamma": [10, 120]}},
    "no layer 7": {"grid": {"deep": [None, [7]]}},
    "the layer range 'deep' is empty": {"grid": {"deep": [[]]}},
    "token 5; the prompt has 5": {"grid": {"token": [1, 5]}},
    "top_k is 5; choose 1 to 4": {"grid": {"top_k": [5]}},
    "needs \\[n_virtual, 16\\]": {"prompts": [SoftPrompt(torch.ones(5, 8), "wide")]},
    "there is no task": {"tasks": []},
    "there is no prompt": {"prompts": []},
    "needs a repr that shows its options": {"contexts": {"mine": unnamed}},
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("message", INVALID)
def test_invalid_grids_raise_before_any_work(
    grid_arguments: dict[str, Any], calls: dict[str, Any], tmp_path: Path, message: str
) -> None:
    with pytest.raises(DPCInterpError, match=message) as caught:
        ablate(**{**grid_arguments, "out": tmp_path / "grid", **INVALID[message]})
    assert "\n" not in str(caught.value)
    assert (calls["generate"], calls["analyse"]) == (0, 0)
    assert not (tmp_path / "grid").exists()


def test_names_must_differ(grid_arguments: dict[str, Any], prompt: SoftPrompt) -> None:
    with pytest.raises(DPCInterpError, match="two of the prompts are named 'random'; give each prompt its own name"):
        ablate(**{**grid_arguments, "prompts": [prompt, prompt]})


def test_prompts_that_were_saved_under_one_name_are_named_by_their_paths(prompt: SoftPrompt, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        prompt.save_pretrained(folder, base_model="reasoner")
    assert [loaded.name for loaded in load_prompts(folders[0])] == [prompt.name]
    assert [loaded.name for loaded in load_prompts(folders)] == list(map(str, folders))
    with pytest.raises(DPCInterpError, match="two of the prompts are named"):
        load_prompts([folders[0], folders[0]])
