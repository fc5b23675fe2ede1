"""The plan of a study: its counts are those of what a study computes, and its sizes fit the time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import dpc_interp as dpc
from dpc_interp import ControlSizes, Costs, DPCInterpError, SoftPrompt, StudyPlan
from dpc_interp.analysis.controls import CONDITIONS
from dpc_interp.claims.causal import causal_edges, n_causal_passes
from dpc_interp.claims.edge_batch import EdgeBatch
from dpc_interp.evaluation import stages
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.models.hooked import HookedModel

COSTS = Costs(decode=0.5, read=0.25)


@pytest.fixture
def plan(model: HookedModel, prompt: SoftPrompt) -> StudyPlan:
    """Two prompts, 10 test and 6 validation problems."""
    second = dpc.SoftPrompt(prompt.vectors, "second")
    sizes = {"n_sinks": 4, "n_causal": 3, "n_sweep": 20, "n_heads": 2}
    made = dpc.study(model, "story", [prompt, second], n=10, n_validation=6, progress=False, **sizes)
    return made.plan(costs=COSTS)


def test_counts_follow_from_sizes(plan: StudyPlan, model: HookedModel) -> None:
    rows = plan.parts.set_index("part")
    assert rows.loc["analysis", "passes"] == 2 * (10 + 6)
    assert rows.loc["control prompts", "passes"] == 2 * len(CONDITIONS) * 4
    assert rows.loc["heads of ACT", "passes"] == 2 * (model.cfg.n_layers * model.cfg.n_heads + 1)
    assert rows.loc["sanity checks", "passes"] == 3 * (model.cfg.n_layers + 2)
    assert rows["jobs"].tolist() == [2, 2, 2, 1, 1, 1, 1]
    assert (rows["hours"] * 3600).tolist() == pytest.approx((0.5 * rows["tokens"] + 0.25 * rows["positions"]).tolist())
    assert plan.hours == pytest.approx(rows["hours"].sum())


def test_texts_are_at_least_those_that_an_evaluation_generates(
    plan: StudyPlan, model: HookedModel, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text without a rationale is not corrupted."""
    texts: Counter[str] = Counter()
    compute = stages.Stages._compute

    def counted(self: stages.Stages, stage: str, *args: Any) -> Any:
        frames = compute(self, stage, *args)
        texts["answers" if "answers" in frames else "analysis"] += len(next(iter(frames.values())))
        return frames

    monkeypatch.setattr(stages.Stages, "_compute", counted)
    problems = dpc.load_problems("story", n=10)
    rule = dpc.TriggerRule("late_share", -1.0)  # fires everywhere
    results = dpc.evaluate(model, problems, prompt, METHODS, rule=rule, max_new_tokens=8, progress=False)
    both = plan.parts.set_index("part").loc["answers", "texts"] - 3 * 10  # without the methods that prompts share
    n_empty = 10 - len(dpc.drop_empty_rationales(model, results.runs))
    assert texts["answers"] == both / 2 + 3 * 10 - 6 - 4 * n_empty, "6 validation problems, 4 kinds of corruption"


def test_knock_outs_cost_at_most_what_is_planned(
    model: HookedModel, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    changes = EdgeBatch.changes_without
    monkeypatch.setattr(EdgeBatch, "changes_without", lambda *args: calls.append(1) or changes(*args))
    runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, max_new_tokens=12, progress=False)
    causal_edges(model, dpc.drop_empty_rationales(model, runs), prompt, progress=False)
    planned = n_causal_passes(model.cfg.n_layers)
    assert planned - 20 - 4 * model.cfg.n_layers <= len(calls) <= planned, "small prompts have fewer groups"


def test_more_workers_shorten_a_study_down_to_its_longest_job(plan: StudyPlan) -> None:
    longest = (plan.parts["hours"] / plan.parts["jobs"]).sum()
    assert plan.hours > longest > plan.hours / 2
    assert plan.wall_hours(1) == plan.hours
    assert plan.wall_hours(1000) == pytest.approx(longest)


def test_sizes_fit_the_time(plan: StudyPlan) -> None:
    assert plan.within(60 * plan.hours + 1) == plan.sizes
    answers = plan.parts.set_index("part").loc[["answers", "analysis"], "hours"].sum()
    half = 60 * (answers + (plan.hours - answers) / 2)
    assert plan.within(half) == ControlSizes(n_sinks=2, n_causal=1, n_sweep=10, n_heads=1)
    with pytest.raises(DPCInterpError, match=f"without controls .* takes about {60 * answers:.0f} minutes; give"):
        plan.within(60 * answers - 1)


def test_costs_are_measured_and_everything_is_printed(model: HookedModel, prompt: SoftPrompt) -> None:
    made = dpc.study(model, "story", prompt, n=4, n_validation=4, batch_size=8, progress=False)
    plan = made.plan()
    assert 0 < plan.costs.decode < 1
    assert 0 < plan.costs.read < 1
    assert "| story | knock-outs | 1 | 0 |" in str(plan)
    assert "on 1 worker, at" in str(plan)
    assert str(plan.memory) in str(plan)
