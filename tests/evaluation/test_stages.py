"""Stages are computed in shards, stored, and shared if everything that they depend on is equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import (
    CorruptionPlan,
    DPCInterpError,
    Options,
    Problem,
    RunConfig,
    SoftPrompt,
    Transcript,
    analyse,
    drop_empty_rationales,
    generate,
)
from dpc_interp.evaluation.jobs import GenerateShard
from dpc_interp.evaluation.stages import Stages, problem_digest, prompt_digest
from dpc_interp.execution.engine import Frames, Job, JobResult, LocalEngine
from dpc_interp.execution.store import SharedStore
from dpc_interp.models.hooked import HookedModel

N_NEW = 8
TEXT, LONGER = (Options(max_new_tokens=n).text for n in (N_NEW, N_NEW + 1))


class RecordingEngine(LocalEngine):
    """A local engine that records the jobs it is given."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[JobResult[Frames]]:
        self.jobs += jobs
        return super().map(model, jobs)

    @property
    def generated(self) -> list[list[str]]:
        """Ids of the problems of each generated shard."""
        return [[problem.id for problem in job.problems] for job in self.jobs if isinstance(job, GenerateShard)]


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def stages(model: HookedModel, prompt: SoftPrompt, engine: RecordingEngine) -> Stages:
    return Stages(model, SharedStore(None), prompt, engine, RunConfig(shard_size=4, progress=False))


@pytest.fixture
def six_problems(problems: list[Problem]) -> list[Problem]:
    return problems[:6]


def texts(runs: Sequence[Transcript]) -> list[str]:
    return [run.text for run in runs]


def plans_of(problems: Sequence[Problem], token: int = 2) -> dict[str, CorruptionPlan]:
    return {problem.id: CorruptionPlan((token,), 0.0, 25) for problem in problems}


def test_transcripts_are_those_of_generate(
    stages: Stages, engine: RecordingEngine, six_problems: list[Problem], model: HookedModel, prompt: SoftPrompt
) -> None:
    for soft_prompt in (prompt, None):
        expected = generate(model, six_problems, soft_prompt, max_new_tokens=N_NEW, progress=False)
        runs = stages.runs("pt", six_problems, soft_prompt, TEXT)
        assert texts(runs) == texts(expected)
        assert [run.problem for run in runs] == six_problems
    assert [len(ids) for ids in engine.generated] == [4, 2, 4, 2], "shards of four, for each of the two stages"


def test_equal_stages_are_computed_once_whatever_their_name(
    stages: Stages, engine: RecordingEngine, six_problems: list[Problem], prompt: SoftPrompt
) -> None:
    first = stages.runs("pt", six_problems, prompt, TEXT)
    assert texts(stages.runs("validation-pt", six_problems, prompt, TEXT)) == texts(first)
    assert len(engine.jobs) == 2
    stages.runs("pt", six_problems, prompt, LONGER)
    stages.runs("pt", six_problems[:5], prompt, TEXT)
    assert len(engine.jobs) == 6, "another number of tokens and other problems are other stages"


def test_corrupted_answers_are_those_of_generate(
    stages: Stages, six_problems: list[Problem], model: HookedModel, prompt: SoftPrompt
) -> None:
    runs, plans = stages.runs("pt", six_problems, prompt, TEXT), plans_of(six_problems)
    expected = generate(
        model, six_problems, prompt, plans=list(plans.values()), max_new_tokens=N_NEW, progress=False
    )  # fmt: skip
    corrupted = stages.corrupted("peak", runs, plans, TEXT)
    assert list(corrupted) == [problem.id for problem in six_problems]
    assert texts(list(corrupted.values())) == texts(expected)
    assert texts(expected) != texts(runs), "corruption must change some answers"


def test_equal_plans_share_their_answers(
    stages: Stages, engine: RecordingEngine, six_problems: list[Problem], prompt: SoftPrompt
) -> None:
    """Of six problems the first three are corrupted first; the next call generates only the other three."""
    runs, plans = stages.runs("pt", six_problems, prompt, TEXT), plans_of(six_problems)
    ids = [problem.id for problem in six_problems]
    first = stages.corrupted("peak", runs[:3], plans, TEXT)
    engine.jobs.clear()
    second = stages.corrupted("random", runs, plans, TEXT)
    assert sorted(name for shard in engine.generated for name in shard) == sorted(ids[3:])
    assert {name: second[name].text for name in first} == {name: run.text for name, run in first.items()}
    engine.jobs.clear()
    stages.corrupted("random", runs, plans | {ids[0]: CorruptionPlan((1,))}, TEXT)
    assert engine.generated == [[ids[0]]], "only the answer under the new plan is missing"


def test_several_corruptions_are_generated_together(
    stages: Stages, engine: RecordingEngine, six_problems: list[Problem], prompt: SoftPrompt
) -> None:
    """Equal ones once; `corrupted` then generates nothing."""
    runs = stages.runs("pt", six_problems, prompt, TEXT)
    plans = [plans_of(six_problems), plans_of(six_problems, token=1), plans_of(six_problems[:2])]
    alone = [texts(list(stages.corrupted("peak", runs, by_id, TEXT).values())) for by_id in plans]
    again = Stages(stages.model, SharedStore(None), prompt, engine, stages.run)
    runs = again.runs("pt", six_problems, prompt, TEXT)
    engine.jobs.clear()
    again.corrupt_ahead(runs, plans, TEXT)
    assert [len(ids) for ids in engine.generated] == [4, 4, 4]
    engine.jobs.clear()
    assert [texts(list(again.corrupted("peak", runs, by_id, TEXT).values())) for by_id in plans] == alone
    assert engine.jobs == []


def test_problems_without_a_plan_are_left_out(stages: Stages, six_problems: list[Problem], prompt: SoftPrompt) -> None:
    runs = stages.runs("pt", six_problems, prompt, TEXT)
    corrupted = stages.corrupted("peak", runs, plans_of(six_problems[1:3]), TEXT)
    assert list(corrupted) == [six_problems[1].id, six_problems[2].id]


def test_answers_within_a_context_are_those_of_generate(
    stages: Stages, six_problems: list[Problem], model: HookedModel, prompt: SoftPrompt, scaled_attention
) -> None:
    runs, context = stages.runs("pt", six_problems, prompt, TEXT), scaled_attention(1, 0.0)
    changed = stages.corrupted("context", runs, None, TEXT, within=context)
    with context(model):
        expected = generate(model, six_problems, prompt, max_new_tokens=N_NEW, progress=False)
    assert texts(list(changed.values())) == texts(expected)
    assert texts(list(stages.corrupted("none", runs, None, TEXT).values())) == texts(runs)


def test_analysis_is_that_of_the_transcripts_with_a_rationale(
    stages: Stages, engine: RecordingEngine, problems: list[Problem], model: HookedModel, prompt: SoftPrompt
) -> None:
    runs = stages.runs("pt", problems, prompt, TEXT)
    analysis = stages.analysis("analysis", runs, "generated", "abs_of_sum")
    expected = analyse(model, drop_empty_rationales(model, runs), prompt, progress=False)
    for name, frame in expected.frames.items():
        pd.testing.assert_frame_equal(analysis.frames[name], frame, rtol=1e-4, atol=1e-6)
    assert analysis.options == {"prompt": "random", "target": "generated", "head_reduction": "abs_of_sum"}
    engine.jobs.clear()
    assert stages.analysis("again", runs, "generated", "abs_of_sum") is analysis
    assert engine.jobs == []
    stages.analysis("analysis", runs, "generated", "sum_of_abs")
    assert len(engine.jobs) > 1, "another reduction is another stage"


def test_transcripts_without_any_rationale_raise(
    stages: Stages, six_problems: list[Problem], prompt: SoftPrompt
) -> None:
    runs = [
        replace(run, generated_tokens=run.generated_tokens[:0]) for run in stages.runs("pt", six_problems, prompt, TEXT)
    ]
    with pytest.raises(DPCInterpError, match="no answer has a rationale to analyse"):
        stages.analysis("analysis", runs, "generated", "abs_of_sum")


def test_stored_stages_are_read_by_the_next_process(
    six_problems: list[Problem], model: HookedModel, prompt: SoftPrompt, tmp_path: Path
) -> None:
    def compute() -> tuple[list[list[str]], list[Job]]:
        engine = RecordingEngine()
        stages = Stages(model, SharedStore(tmp_path), prompt, engine, RunConfig(shard_size=4, progress=False))
        runs = stages.runs("pt", six_problems, prompt, TEXT)
        corrupted = stages.corrupted("peak", runs, plans_of(six_problems), TEXT)
        return [texts(runs), texts(list(corrupted.values()))], engine.jobs

    first, jobs = compute()
    assert len(jobs) == 4
    second, jobs = compute()
    assert jobs == []
    assert second == first


@pytest.mark.parametrize("change", [{"question": "Why?"}, {"answer": "1"}, {"rationale": "1 + 1 = 2"}, {"id": "x"}])
def test_problem_digest_depends_on_the_problems_and_their_order(
    problems: list[Problem], change: dict[str, str]
) -> None:
    digest = problem_digest(problems)
    assert problem_digest(list(problems)) == digest
    assert problem_digest([replace(problems[0], **change), *problems[1:]]) != digest
    assert problem_digest(problems[::-1]) != digest


def test_prompt_digest_depends_on_the_vectors_only(prompt: SoftPrompt) -> None:
    assert prompt_digest(SoftPrompt(prompt.vectors.clone(), "another name")) == prompt_digest(prompt)
    assert prompt_digest(SoftPrompt(prompt.vectors + 1e-6)) != prompt_digest(prompt)
