"""A job gives the frames of the function that it wraps, also after it was sent to another process."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pandas as pd
import pytest

from dpc_interp import CorruptionPlan, Options, Problem, SoftPrompt, Transcript, analyse, generate
from dpc_interp.evaluation.jobs import AnalyseShard, GenerateShard
from dpc_interp.models.hooked import HookedModel

DECODING = {"max_new_tokens": 8, "batch_size": 4, "progress": False}
SHARD = {"text": Options(max_new_tokens=8).text, "batch_size": 4, "progress": False}


@pytest.mark.parametrize("corrupted", [False, True])
def test_generated_tokens_are_those_of_generate(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, corrupted: bool
) -> None:
    problems = problems[:5]
    plans = [CorruptionPlan((k,), gamma=25) for k in range(5)] if corrupted else None
    columns = {"instance": [problem.id for problem in problems], "key": list("abcde")}
    job = GenerateShard(columns, problems, prompt, plans, None, within=None, **SHARD)
    frame = pickle.loads(pickle.dumps(job))(model)["answers"]
    runs = generate(model, problems, prompt, plans=plans, **DECODING)
    assert frame.columns.tolist() == ["instance", "key", "generated_tokens"]
    assert frame["instance"].tolist() == columns["instance"]
    assert frame["key"].tolist() == columns["key"]
    assert frame["generated_tokens"].tolist() == [run.generated_tokens.tolist() for run in runs]


def test_the_bare_model_answers_without_a_prompt(model: HookedModel, problems: list[Problem]) -> None:
    job = GenerateShard({}, problems[:3], None, None, None, within=None, **SHARD)
    runs = generate(model, problems[:3], **DECODING)
    assert job(model)["answers"]["generated_tokens"].tolist() == [run.generated_tokens.tolist() for run in runs]


def test_drafts_do_not_change_the_answers(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    runs = generate(model, problems[:3], prompt, **DECODING)
    answers = [run.generated_tokens for run in runs]
    expected = [tokens.tolist() for tokens in answers]
    for drafts in (answers, answers[::-1]):
        job = GenerateShard({}, problems[:3], prompt, None, drafts, within=None, **SHARD)
        assert job(model)["answers"]["generated_tokens"].tolist() == expected


def test_the_model_is_changed_only_within_the_context(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, scaled_attention, unchanged
) -> None:
    context = scaled_attention(1, 0.0)
    job = GenerateShard({}, problems[:5], prompt, None, None, within=context, **SHARD)
    with unchanged(model):
        tokens = job(model)["answers"]["generated_tokens"].tolist()
    with context(model):
        runs = generate(model, problems[:5], prompt, **DECODING)
    assert tokens == [run.generated_tokens.tolist() for run in runs]
    assert tokens != [run.generated_tokens.tolist() for run in generate(model, problems[:5], prompt, **DECODING)]


def test_frames_are_those_of_analyse(
    model: HookedModel, prompt: SoftPrompt, written: Callable[..., Transcript]
) -> None:
    runs = [written("buys 8: 9 + 8 = 17\n#### 17", name="a"), written("9 + 8 = 17. 17 - 2 = 15.", name="b")]
    job = AnalyseShard(runs, prompt, "gold", "sum_of_abs", progress=False)
    frames = pickle.loads(pickle.dumps(job))(model)
    expected = analyse(model, runs, prompt, target="gold", head_reduction="sum_of_abs", progress=False).frames
    assert list(frames) == list(expected)
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(frames[name], frame)
