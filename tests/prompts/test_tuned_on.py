"""Warnings where a prompt is evaluated on its training questions, or in a format that nothing states."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from dpc_interp import Problem, SoftPrompt, TriggerRule, evaluate, tune_prompt
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.tuned_on import question_hashes, warn_of_training_questions, warn_of_unknown_format


def test_questions_that_the_prompt_was_tuned_on_are_counted(model: HookedModel, problems: list[Problem]) -> None:
    tuned = tune_prompt(model, problems[:12], 3, max_steps=1, progress=False)
    assert tuned.recipe["questions"] == question_hashes(problems[:12])
    with pytest.warns(UserWarning, match="was tuned on 2 of the 4 test questions"):
        warn_of_training_questions(tuned, problems[10:14], "test")
    rule = TriggerRule("late_share", 0.5)
    with pytest.warns(UserWarning, match="was tuned on 3 of the 3 test questions"):
        evaluate(model, problems[:3], tuned, [], rule=rule, max_new_tokens=8, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_training_questions(tuned, problems[12:14], "test")
        warn_of_training_questions(SoftPrompt(tuned.vectors), problems[:3], "test")


def test_an_adapter_without_a_format(prompt: SoftPrompt, problems: list[Problem]) -> None:
    adapter = SoftPrompt(prompt.vectors, "mine", {"init_text": "Think"}, "somewhere/llama")
    with pytest.warns(UserWarning, match=r"'mine' does not say .* are read as '\{question\}\\n'; give template="):
        warn_of_unknown_format(adapter, problems, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_format(adapter, problems, True)
        warn_of_unknown_format(adapter, [replace(p, template="Q: {question}") for p in problems], False)
        warn_of_unknown_format(replace(adapter, recipe={"template": None, "prepend_bos": None}), problems, False)
        warn_of_unknown_format(replace(adapter, base_model=""), problems, False)
