"""Which prompts a model's figures are drawn from."""

from __future__ import annotations

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.prompts import RECIPES, Recipe
from dpc_interp.study import prompts_of


def test_all_tasks_and_seeds_or_those_asked_for() -> None:
    every = prompts_of("reasoner", None, None)
    assert list(every) == list(RECIPES["reasoner"])
    assert every["story"] == [f"reasoner/story/seed{seed}" for seed in range(3)]
    assert prompts_of("reasoner", ["rule"], 1) == {"rule": ["reasoner/rule/seed0"]}


def test_what_has_no_prompt_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DPCInterpError, match=r"unknown task of reasoner 'stroy'.*story"):
        prompts_of("reasoner", ["stroy"], None)
    with pytest.raises(DPCInterpError, match=r"unknown model .*'gpt-9'"):
        prompts_of("gpt-9", None, None)
    monkeypatch.setattr("dpc_interp.prompts.RECIPES", {"mine": {"story": Recipe("story")}})
    with pytest.raises(DPCInterpError, match=r"no prompt for mine/story yet; run make prompts MODEL=mine"):
        prompts_of("mine", None, None)
