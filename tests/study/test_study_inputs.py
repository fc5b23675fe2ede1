"""The model and the prompts that a study is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, Problem, RunConfig, SoftPrompt
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.study_inputs import load_for_engine, name_of_model, with_prompts


def test_the_name_of_a_model(model: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    assert name_of_model("reasoner") == "reasoner"
    assert name_of_model(tmp_path / "llama") == name_of_model(str(tmp_path / "llama")) == "llama"
    assert name_of_model(model) == model.cfg.model_name


def test_a_loaded_model_takes_no_load_options_and_no_processes(model: HookedModel) -> None:
    assert load_for_engine(model, RunConfig(), {"dtype": None}) is model
    with pytest.raises(DPCInterpError, match="load_options are for a model that is given by its name"):
        load_for_engine(model, RunConfig(), {"dtype": "bf16"})
    with pytest.raises(DPCInterpError):
        load_for_engine(model, RunConfig(engine="processes"), None)


def test_prompts_of_all_tasks_or_by_task(prompt: SoftPrompt, problems: list[Problem]) -> None:
    by_task = {"a": {"test": problems}, "b": {"test": problems[:1]}}
    assert [(name, tuned) for name, _, tuned in with_prompts(by_task, prompt)] == [("a", [prompt]), ("b", [prompt])]
    (a, b) = with_prompts(by_task, {"b": [prompt, SoftPrompt(prompt.vectors, "second")], "a": prompt})
    assert (a[0], len(a[2]), b[1], len(b[2])) == ("a", 1, by_task["b"], 2)
    with pytest.raises(DPCInterpError, match="there is no prompt for 'b'; prompts are given for: a"):
        list(with_prompts(by_task, {"a": prompt}))
    with pytest.raises(DPCInterpError, match="there are prompts for 'c', but no problems; tasks: a, b"):
        list(with_prompts(by_task, {"a": prompt, "b": prompt, "c": prompt}))
