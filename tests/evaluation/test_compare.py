"""Where each method fires and what it answers, with transcripts and an analysis written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from dpc_interp import Analysis, DPCInterpError, Options, Problem, SoftPrompt, Transcript, TriggerRule
from dpc_interp.evaluation.compare import calibrate, check_problems, compare, statistics_of
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.evaluation.stages import Stages

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
        (name, k, "x", 0, k >= 2, 0.5, 0, float(value))
        for name, late in LATE_FLOWS.items()
        for k, value in enumerate((2, 2, *late))
    ]
    return Analysis(
        flow=pd.DataFrame(
            {"instance": names, "layer": 0, "source": "prompt", "destination": "question", "value": 1.0}
        ).assign(source_step=pd.NA, step=pd.NA),
        accumulation=pd.DataFrame(
            [(name, 0, j, float(j)) for name in names for j in range(2)],
            columns=["instance", "layer", "virtual_token", "value"],
        ),
        tokens=pd.DataFrame(tokens, columns=["instance", "position", "token", "step", "late", "nll", "layer", "value"]),
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
    """Returns transcripts written by hand, and records which problems are corrupted under which name."""

    def __init__(self, written: Callable[..., Transcript], prompt: SoftPrompt) -> None:
        self.prompt, self.written = prompt, written
        self.corrupted_ids: dict[str, list[str]] = {}

    def runs(self, name, problems, prompt, max_new_tokens, draft=False) -> list[Transcript]:
        if prompt is None:
            return [self.written("#### 0", name=problem.id) for problem in problems]
        return [self.written(TEXTS[problem.id], name=problem.id, gold=GOLD) for problem in problems]

    def corrupted(
        self, name: str, runs: Sequence[Transcript], plans: Mapping | None, max_new_tokens: int, within=None
    ) -> dict[str, Transcript]:
        ids = [run.problem.id for run in runs if plans is None or run.problem.id in plans]
        self.corrupted_ids[name] = ids
        return {i: self.written(CORRUPTED.get(i, "#### 1"), name=i, gold=GOLD) for i in ids}

    def analysis(self, name, runs, target, head_reduction) -> Analysis:
        return analysis_by_hand()


@pytest.fixture
def stages(written: Callable[..., Transcript], prompt: SoftPrompt) -> CannedStages:
    return CannedStages(written, prompt)


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
        "base": "",
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
    instances = compare(stages, reported, ["base", "dpc", "always", "oracle"], RULE, Options()).instances
    answers = {method: column(instances, method, "answer") for method in ("base", "pt", "dpc", "always", "oracle")}
    assert answers == {
        "base": ["0", "0", "0", "0", "0"],
        "pt": ["18", "17", "19", "12", "17"],
        "dpc": ["17", "16", "19", "12", "17"],
        "always": ["17", "16", "17", "12", "17"],
        "oracle": ["17", "17", "17", "12", "17"],
    }
    assert column(instances, "dpc", "correct") == [True, False, False, False, True]
    assert set(instances["task"]) == {"story"}
    assert set(instances["prompt"]) == {"random"}


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
    assert stats["peak_token"].tolist() == [1, 1, 1, 1]
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
    ):
        with pytest.raises(DPCInterpError, match=message):
            check_problems(problems, validation)
