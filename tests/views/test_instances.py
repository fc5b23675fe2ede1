"""The table of instances says what the results say."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dpc_interp as dpc
from dpc_interp import Results
from dpc_interp.views.instances import FILTERS, instances_table


@pytest.fixture(scope="module")
def results() -> Results:
    model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/choice")
    problems = dpc.load_problems("choice", n=40)
    rule = dpc.TriggerRule("late_share", 0.05)
    results = dpc.evaluate(model, problems, prompt, ["pt", "instruct"], rule=rule, progress=False)
    # few answers are harmed, and with the opposite of what is correct many are
    is_instruct = results.instances["method"] == "instruct"
    opposite = results.instances["correct"] ^ (is_instruct & (results.instances.index % 2 == 0))
    return replace(results, instances=results.instances.assign(correct=opposite))


def test_outcomes_effects_and_firing(results: Results) -> None:
    table = instances_table([results, results])
    assert len(table) == 2 * len(results.statistics)
    table = table.iloc[: len(results.statistics)]
    correct = results.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first")
    assert set(table["effect"]) == {"harmed", "helped", "none"}
    for row in table.to_dict("records"):
        pt, instruct = correct.loc[row["instance"], ["pt", "instruct"]]
        assert row["outcome"] == ("right" if pt else "wrong")
        assert row["effect"] == {(0, 1): "harmed", (1, 0): "helped"}.get((int(pt), int(instruct)), "none")
        assert row["fired"] == ("yes" if row["late_share"] > 0.05 else "no")
    assert set(table["fired"]) == {"yes", "no"}
    assert set(FILTERS) <= set(table)


def test_without_instruct_the_effect_is_unknown(results: Results) -> None:
    instances = results.instances[results.instances["method"] == "pt"]
    assert set(instances_table([replace(results, instances=instances)])["effect"]) == {"–"}
