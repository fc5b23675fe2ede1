"""A case holds what the analysis of the same instance says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import dpc_interp as dpc
from dpc_interp import DPCInterpError
from dpc_interp.views.case import Case, case


@pytest.fixture(scope="module")
def reasoner() -> tuple[dpc.models.hooked.HookedModel, dpc.SoftPrompt]:
    return dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")


def test_numbers_are_those_of_the_analysis(shown: Case, reasoner) -> None:
    model, prompt = reasoner
    analysis = dpc.analyse(model, [shown.run], prompt, progress=False)
    (row,) = dpc.trigger_statistics(analysis).to_dict("records")
    assert shown.statistics.to_dict() == row
    start, stop = shown.map.segments.late
    assert 0 < len(shown.affected) / (stop - start) == row["late_share"]
    assert all(start <= position < stop for position in shown.affected)
    deep = analysis.tokens[analysis.tokens["layer"].isin(shown.deep)].groupby("position")["value"].mean()
    above = deep.index[deep > shown.beta] + shown.map.segments.rationale[0]
    assert set(shown.affected) == {p for p in above if p >= start}
    assert shown.sinks == analysis.sinks
    assert shown.fires is True
    assert replace(shown, rule=None).fires is None
    assert torch.equal(shown.map.values, dpc.saliency_map(model, shown.run, prompt).values)


def test_the_corrupted_answer_is_that_of_generate(shown: Case, reasoner) -> None:
    model, prompt = reasoner
    plans = dpc.plan_corruption(dpc.analyse(model, [shown.run], prompt, progress=False), gamma=10)
    (expected,) = dpc.generate(model, [shown.run.problem], prompt, plans=plans, progress=False)
    assert shown.corrupted is not None
    assert (shown.corrupted.text, shown.corrupted.answer) == (expected.text, expected.answer)
    assert case(model, shown.run, prompt, corrupted=False).corrupted is None
    assert case(model, shown.run, prompt, corrupted=expected).corrupted is expected


def test_a_written_rationale_is_measured_where_it_is_the_target(shown: Case, reasoner) -> None:
    model, prompt = reasoner
    gold = case(model, shown.run, prompt, corrupted=False, options=dpc.Options(target="gold"))
    expected = dpc.trigger_statistics(dpc.analyse(model, [shown.run], prompt, target="gold", progress=False))
    assert gold.statistics["late_share"] == expected["late_share"][0]
    assert gold.affected == (), "its tokens are not those that are shown"
    other = replace(shown.run, problem=replace(shown.run.problem, id="other"))
    with pytest.raises(DPCInterpError, match="is to problem other, not to"):
        case(model, shown.run, prompt, corrupted=other)


def test_plain_text_has_no_trigger(shown: Case, reasoner) -> None:
    model, _ = reasoner
    plain = case(model, shown.run, None)
    assert (plain.prompt, plain.affected, plain.corrupted, len(plain.statistics)) == ("", (), None, 0)
    assert plain.map.segments.prompt == (0, 0)
    with pytest.raises(DPCInterpError, match="about a soft prompt; give the prompt"):
        case(model, shown.run, None, rule=dpc.TriggerRule("late_share", 0.5))
