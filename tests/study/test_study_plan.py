"""The plan of a study: its counts are those of what a study computes, and its sizes fit the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import dpc_interp as dpc
from dpc_interp import ControlSizes, Costs, DPCInterpError, SoftPrompt, Study, StudyPlan
from dpc_interp.analysis.controls import CONDITIONS
from dpc_interp.claims.causal import causal_edges, n_causal_passes
from dpc_interp.claims.edge_batch import EdgeBatch
from dpc_interp.evaluation import stages
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.control_runs import RunControls

COSTS = Costs(prefill=0.125, decode=0.5, read=0.25)


SIZES = ControlSizes(n_sinks=4, n_causal=3, n_sweep=20, n_heads=2)


@pytest.fixture
def small(model: HookedModel, prompt: SoftPrompt) -> Callable[[ControlSizes], Study]:
    """Two prompts, 10 test and 6 validation problems; with given sizes of the controls."""
    second = dpc.SoftPrompt(prompt.vectors, "second")
    fields = {"n": 10, "n_validation": 6, "max_new_tokens": 64, "progress": False}
    return lambda sizes: dpc.study(model, "story", [prompt, second], sizes=sizes, **fields)


@pytest.fixture
def plan(small: Callable[[ControlSizes], Study]) -> StudyPlan:
    return small(SIZES).plan(costs=COSTS)


def test_counts_follow_from_sizes(plan: StudyPlan, model: HookedModel) -> None:
    rows = plan.parts.set_index("part")
    assert rows.loc["analysis", "passes"] == 2 * (10 + 6)
    assert rows.loc["control prompts", "passes"] == 2 * len(CONDITIONS) * 4
    assert rows.loc["heads of ACT", "passes"] == 2 * (model.cfg.n_layers * model.cfg.n_heads + 1)
    assert rows.loc["sanity checks", "passes"] == 3 * (model.cfg.n_layers + 2)
    assert rows["jobs"].tolist() == [2, 2, 2, 1, 1, 1, 1, 1]
    n_read = rows.loc["analysis", "positions"] / 32 - rows.loc["answers", "tokens"] / rows.loc["answers", "texts"]
    seconds = 0.125 * n_read * rows["texts"] + 0.5 * rows["tokens"] + 0.25 * rows["positions"]
    assert (rows["hours"] * 3600).tolist() == pytest.approx(seconds.tolist())
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
    texts_of = plan.parts.set_index("part")["texts"]
    n_empty = 10 - len(dpc.drop_empty_rationales(model, results.runs))
    planned = texts_of["answers"] / 2 - 6 + texts_of["answers without the prompt"]
    assert texts["answers"] == planned - 4 * n_empty, "6 validation problems, 4 kinds of corruption"


def test_knock_outs_cost_at_most_what_is_planned(
    model: HookedModel, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    changes = EdgeBatch.changes_without
    monkeypatch.setattr(EdgeBatch, "changes_without", lambda *args: calls.append(1) or changes(*args))
    runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, max_new_tokens=12, progress=False)
    causal_edges(model, dpc.drop_empty_rationales(model, runs), prompt, progress=False)
    planned = n_causal_passes(model.cfg.n_layers)
    # every pass but the loss with all edges and the saliency; 19 of 20 groups and 3 of 4 top tokens are there
    assert planned - 2 - 20 - model.cfg.n_layers * 4 <= len(calls) <= planned - 2, "small prompts have fewer groups"


def test_hours_at_the_limit_count_every_text_as_cut_off(plan: StudyPlan) -> None:
    """With `max_new_tokens` of 64, and written texts that are shorter."""
    rows = plan.parts
    n_written = (rows["tokens"] / rows["texts"]).iloc[0]
    longer = (64 - n_written) * (0.5 * rows["texts"] + 0.25 * rows["passes"])
    assert n_written < 64
    assert (rows["limit_hours"] * 3600).tolist() == pytest.approx((rows["hours"] * 3600 + longer).tolist())
    assert plan.at_limit.hours == pytest.approx(rows["limit_hours"].sum())
    minutes = f"{60 * plan.wall_hours():.0f} minutes on 1 worker", f"{60 * plan.at_limit.wall_hours():.0f} (limit"
    assert all(text in str(plan) for text in minutes)


def test_more_workers_shorten_a_study_down_to_its_longest_job(plan: StudyPlan) -> None:
    longest = (plan.parts["hours"] / plan.parts["jobs"]).sum()
    assert plan.hours > longest > plan.hours / 2
    assert plan.wall_hours(1) == plan.hours
    assert plan.wall_hours(1000) == pytest.approx(longest)


@pytest.mark.parametrize("n_workers", [1, 8])
def test_sizes_fit_the_time(small: Callable[[ControlSizes], Study], n_workers: int) -> None:
    whole = small(SIZES).plan(costs=COSTS, n_workers=n_workers)
    one = small(ControlSizes(1, 1, 1, 1)).plan(costs=COSTS, n_workers=n_workers)
    minutes = 30 * (whole.wall_hours() + one.wall_hours())
    planned = small(SIZES).plan(costs=COSTS, n_workers=n_workers, minutes=minutes)
    again = small(planned.sizes).plan(costs=COSTS, n_workers=n_workers)
    assert 0.8 * minutes < 60 * again.wall_hours() <= minutes
    assert planned.sizes.n_sweep <= 10, "there are no more problems"
    with pytest.raises(DPCInterpError, match=r"with controls of one problem the study takes about \d+ minutes; give"):
        small(SIZES).plan(costs=COSTS, n_workers=n_workers, minutes=59 * one.wall_hours())


def test_costs_are_measured_and_everything_is_printed(model: HookedModel, prompt: SoftPrompt) -> None:
    made = dpc.study(model, "story", prompt, n=4, n_validation=4, batch_size=8, progress=False)
    plan = made.plan()
    assert 0 < plan.costs.prefill < 1
    assert plan.costs.prefill <= plan.costs.decode < 1
    assert 0 < plan.costs.read < 1
    assert "| story | knock-outs | 1 | 0 |" in str(plan)
    assert "minutes on 1 worker if texts" in str(plan)
    assert str(plan.memory) in str(plan)


def test_sweeps_generate_about_what_is_planned(
    model: HookedModel, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trigger fires everywhere."""
    texts: list[int] = []
    generate = stages.Stages._generate

    def counted(self: stages.Stages, *args: Any) -> Any:
        frame = generate(self, *args)
        texts.append(len(frame))
        return frame

    made = dpc.study(model, "story", prompt, n=3, n_validation=3, n_heads=1, max_new_tokens=6, progress=False)
    planned = made.plan(costs=COSTS).parts.set_index("part").loc["sweeps", "texts"]
    rule = dpc.TriggerRule("late_share", -1.0)
    monkeypatch.setattr("dpc_interp.evaluation.compare.calibrate_trigger", lambda *_: rule)
    task = made._tasks[0]
    with monkeypatch.context() as patch:
        patch.setattr(stages.Stages, "_generate", counted)
        RunControls(made._settings, task, prompt, made._sizes, True)._sweep(model)
    assert planned / 2 < sum(texts) <= planned, "options that change no plan share their texts"
