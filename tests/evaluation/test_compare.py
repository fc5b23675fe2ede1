"""What each method reads, where it fires and what it answers, with transcripts and an analysis written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import pytest

from dpc_interp import Analysis, DPCInterpError, Options, Problem, SoftPrompt, Transcript, TriggerRule
from dpc_interp.evaluation.compare import calibrate, check_problems, compare, instructed, statistics_of
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.evaluation.stages import Stages
from dpc_interp.interventions.knockout import KnockoutPlan
from dpc_interp.models.hooked import HookedModel

RULE = TriggerRule("late_share", 0.4)
LATE_FLOWS = {"a": (3, 3), "b": (3, 1), "c": (1, 1), "e": (1, 1)}
"""Flow into the two late tokens. Both early tokens have 2, so the late shares are 1, 1/2, 0 and 0."""
GOLD = "17"
TEXTS = {  # under prompt tuning; "d" has no rationale
    "a": "9 + 8 = 18\n#### 18",
    "b": "9 + 8 = 17\n#### 17",
    "c": "9 + 8 = 19\n#### 19",
    "d": "#### 12",
    "e": "9 + 8 = 17\n#### 17",
}
CORRUPTED = {"a": "#### 17", "b": "#### 16", "c": "#### 17", "e": "#### 17"}


def analysis_by_hand() -> Analysis:
    """One layer, two virtual tokens, four rationale tokens an instance."""
    names = list(LATE_FLOWS)
    tokens = [
        (name, k, "x", 0, k >= 2, 0.5, 0, float(value), 0.5)
        for name, late in LATE_FLOWS.items()
        for k, value in enumerate((2, 2, *late))
    ]
    return Analysis(
        flow=pd.DataFrame(
            {"instance": names, "layer": 0, "source": "prompt", "destination": "question", "value": 1.0}
        ).assign(source_step=pd.NA, step=pd.NA),
        accumulation=pd.DataFrame(
            [(name, 0, j, float(j), float(j)) for name in names for j in range(3)],
            columns=["instance", "layer", "virtual_token", "value", "into_question"],
        ),
        tokens=pd.DataFrame(
            tokens, columns=["instance", "position", "token", "step", "late", "nll", "layer", "value", "row_share"]
        ),
        instances=pd.DataFrame(
            {
                "instance": names,
                "task": "story",
                "correct": [False, True, False, True],
                "n_steps": 1,
                "n_rationale_tokens": 4,
                "nll": 0.5,
                "answer_nll": 0.5,
            }
        ),
        options={},
    )


class CannedStages(Stages):
    """Returns transcripts written by hand, and records the questions without a prompt and the plans by stage."""

    def __init__(self, written: Callable[..., Transcript], model: HookedModel, prompt: SoftPrompt) -> None:
        self.model, self.prompt, self.written = model, prompt, written
        self.corrupted_ids: dict[str, list[str]] = {}
        self.asked: dict[str, list[str]] = {}
        self.plans: dict[str, Mapping | None] = {}

    def runs(self, name, problems, prompt, max_new_tokens, draft=False) -> list[Transcript]:
        if prompt is None:
            self.asked[name] = [problem.question for problem in problems]
            answer = "17" if name.endswith("instruct") else "0"
            return [self.written(f"#### {answer}", name=problem.id, gold=GOLD) for problem in problems]
        return [self.written(TEXTS[problem.id], name=problem.id, gold=GOLD) for problem in problems]

    def corrupted(
        self, name: str, runs: Sequence[Transcript], plans: Mapping | None, max_new_tokens: int, within=None
    ) -> dict[str, Transcript]:
        ids = [run.problem.id for run in runs if plans is None or run.problem.id in plans]
        self.corrupted_ids[name], self.plans[name] = ids, plans
        return {i: self.written(CORRUPTED.get(i, "#### 1"), name=i, gold=GOLD) for i in ids}

    def analysis(self, name, runs, target, head_reduction) -> Analysis:
        return analysis_by_hand()


@pytest.fixture
def stages(written: Callable[..., Transcript], model: HookedModel, prompt: SoftPrompt) -> CannedStages:
    return CannedStages(written, model, prompt)


@pytest.fixture
def reported() -> list[Problem]:
    return [Problem("story", f"Question {name}", "9 + 8 = 17\n#### 17", GOLD, 1, name) for name in TEXTS]


def column(instances: pd.DataFrame, method: str, name: str) -> list[object]:
    return instances.loc[instances["method"] == method, name].tolist()


def test_where_each_method_fires(stages: CannedStages, reported: list[Problem]) -> None:
    """The rule fires on a and b, whose late shares exceed 0.4; d cannot fire, since it has no rationale."""
    compared = compare(stages, reported, list(METHODS), RULE, Options())
    assert compared.instances["method"].unique().tolist() == list(METHODS)
    fired = {
        method: "".join(
            name for name, fires in zip(TEXTS, column(compared.instances, method, "fired"), strict=True) if fires
        )
        for method in METHODS
        if method != "random"
    }
    assert fired == {
        "bare": "",
        "instruct": "",
        "random_prompt": "",
        "cut_off": "",
        "pt": "",
        "always": "abce",
        "dpc": "ab",
        "oracle": "ac",
        "dpc, random token": "ab",
        "dpc, mask only": "ab",
        "dpc, gamma only": "ab",
    }


def test_random_fires_as_often_as_the_rule_at_positions_that_depend_on_the_seed(
    stages: CannedStages, reported: list[Problem]
) -> None:
    drawn = set()
    for seed in range(10):
        fired = column(compare(stages, reported, ["random"], RULE, Options(seed=seed)).instances, "random", "fired")
        assert sum(fired) == 2
        assert not fired[list(TEXTS).index("d")]
        drawn.add(tuple(fired))
    assert len(drawn) > 3


def test_answers_are_the_corrupted_ones_where_a_method_fires(stages: CannedStages, reported: list[Problem]) -> None:
    methods = ["bare", "instruct", "random_prompt", "cut_off", "pt", "dpc", "always", "oracle"]
    instances = compare(stages, reported, methods, RULE, Options()).instances
    assert {method: column(instances, method, "answer") for method in methods} == {
        "bare": ["0", "0", "0", "0", "0"],
        "instruct": ["17", "17", "17", "17", "17"],
        "random_prompt": ["17", "16", "17", "1", "17"],
        "cut_off": ["17", "16", "17", "1", "17"],
        "pt": ["18", "17", "19", "12", "17"],
        "dpc": ["17", "16", "19", "12", "17"],
        "always": ["17", "16", "17", "12", "17"],
        "oracle": ["17", "17", "17", "12", "17"],
    }
    assert column(instances, "instruct", "correct") == [True] * 5
    assert column(instances, "dpc", "correct") == [True, False, False, False, True]
    assert set(instances["task"]) == {"story"}
    assert set(instances["prompt"]) == {"random"}


def test_an_answer_is_changed_where_its_text_differs_from_that_of_pt(
    stages: CannedStages, reported: list[Problem]
) -> None:
    """On e the corrupted answer is the same, but not the text; d has no rationale, and dpc and always keep its text."""
    methods = ["bare", "cut_off", "dpc", "always"]
    instances = compare(stages, reported, methods, RULE, Options()).instances
    assert {method: column(instances, method, "changed") for method in (*methods, "pt")} == {
        "bare": [True] * 5,
        "cut_off": [True] * 5,
        "pt": [False] * 5,
        "dpc": [True, True, False, False, False],
        "always": [True, True, True, False, True],
    }
    assert instances["changed"].dtype == bool


def test_the_instruction_stands_around_the_question_and_changes_nothing_else(
    stages: CannedStages, reported: list[Problem]
) -> None:
    options = Options(instruction="Reason first.\n{question}\nBegin: {question}")
    compare(stages, reported, ["instruct", "bare"], None, options, prefix="x-")
    questions = [f"Question {name}" for name in TEXTS]
    expected = [f"Reason first.\n{question}\nBegin: {question}" for question in questions]
    assert stages.asked == {"x-instruct": expected, "x-bare": questions}
    changed = instructed(reported, options.instruction)
    assert [replace(problem, question=question) for problem, question in zip(changed, questions, strict=True)] == (
        reported
    )
    assert instructed(reported, "{question}") == reported


def test_the_whole_prompt_is_random_or_cut_off_on_every_problem(
    stages: CannedStages, reported: list[Problem], prompt: SoftPrompt
) -> None:
    """d too, which has no rationale. The random vectors are another draw for each problem and seed."""
    compare(stages, reported, ["random_prompt", "cut_off"], None, Options(seed=3), prefix="x-")
    assert stages.corrupted_ids == {"x-random_prompt": list(TEXTS), "x-cut_off": list(TEXTS)}
    hidden = KnockoutPlan(tuple(range(prompt.n_virtual)))
    assert stages.plans["x-cut_off"] == dict.fromkeys(TEXTS, hidden)
    drawn = stages.plans["x-random_prompt"]
    compare(stages, reported, ["random_prompt"], None, Options(seed=4), prefix="x-")
    others = stages.plans["x-random_prompt"]
    vectors = [plans[name](prompt.vectors) for plans in (drawn, others) for name in TEXTS]
    assert len({tuple(values.flatten().tolist()) for values in vectors}) == 2 * len(TEXTS)


def test_only_needed_answers_are_corrupted(stages: CannedStages, reported: list[Problem]) -> None:
    """One stage for each kind of corruption, on the union of the problems on which its methods fire."""
    compare(stages, reported, ["dpc", "oracle", "dpc, mask only"], RULE, Options(), prefix="validation-")
    assert stages.corrupted_ids == {"validation-peak": ["a", "b", "c"], "validation-mask only": ["a", "b"]}


def test_fixes_are_the_wrong_answers_that_corruption_corrects(stages: CannedStages, reported: list[Problem]) -> None:
    fixes = compare(stages, reported, ["always"], None, Options()).fixes
    assert fixes is not None
    assert fixes.to_dict() == {"a": True, "b": False, "c": True, "d": False, "e": False}
    assert compare(stages, reported, ["dpc"], RULE, Options()).fixes is None


def test_contexts_answer_every_problem_again(stages: CannedStages, reported: list[Problem], scaled_attention) -> None:
    contexts = {"half": scaled_attention(0, 0.5)}
    instances = compare(stages, reported, [], None, Options(), contexts=contexts).instances
    assert instances["method"].unique().tolist() == ["pt", "half"]
    assert column(instances, "half", "fired") == [True] * 5
    assert column(instances, "half", "answer") == ["17", "16", "17", "1", "17"]


def test_statistics_are_computed_with_the_options() -> None:
    """Flow above 2.5 is affected: both late tokens of a, one of b."""
    stats = statistics_of(analysis_by_hand(), Options())
    assert stats["late_share"].tolist() == [1, 0.5, 0, 0]
    assert stats["peak_token"].tolist() == [2, 2, 2, 2]
    assert statistics_of(analysis_by_hand(), Options(beta=0.5))["late_share"].tolist() == [1, 1, 1, 1]
    assert statistics_of(analysis_by_hand(), Options(exclude_sink=False))["peak_ratio"].tolist() == [2, 2, 2, 2]


def test_the_offset_moves_the_calibrated_threshold(stages: CannedStages, reported: list[Problem]) -> None:
    rule, stats = calibrate(stages, reported, Options())
    moved, _ = calibrate(stages, reported, Options(alpha_offset=-0.25))
    assert (rule.statistic, rule.criterion, rule.split, rule.n) == ("late_share", "youden", "validation", 4)
    assert moved.threshold == rule.threshold - 0.25
    assert moved.criterion == "youden -0.25"
    assert "corrupted_correct" not in stats


def test_accuracy_is_calibrated_on_the_corrupted_validation_answers(
    stages: CannedStages, reported: list[Problem]
) -> None:
    """Corruption fixes a (late share 1) and c (0) and breaks b (1/2): fire above 1/2."""
    rule, stats = calibrate(stages, reported, Options(criterion="accuracy"))
    assert stats["corrupted_correct"].tolist() == [True, False, True, True]
    assert rule.threshold == 0.5
    assert stages.corrupted_ids == {"validation": ["a", "b", "c", "e"]}


def test_problems_of_one_task_and_disjoint_splits_pass(reported: list[Problem]) -> None:
    check_problems(reported[:2], reported[2:])
    check_problems(reported, [])


def test_invalid_problems_raise(reported: list[Problem]) -> None:
    rule_problem = Problem("rule", "Why?", "", "1", 1, "rule-0")
    for problems, validation, message in (
        ([], [], "there are no problems to evaluate"),
        ([*reported, reported[0]], [], "two problems have the id 'a'"),
        (reported[:1], [reported[1], reported[1]], "two problems have the id 'b'"),
        ([*reported, rule_problem], [], r"problems of several tasks \(rule, story\); evaluate one task at a time"),
        (
            reported,
            [reported[3], reported[1]],
            "b is a validation and a reported problem; use problems of different splits",
        ),
        (reported, [replace(reported[1], id="other")], "other is a validation and a reported problem"),
    ):
        with pytest.raises(DPCInterpError, match=message):
            check_problems(problems, validation)
