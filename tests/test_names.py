"""Every call that takes a model, problems or a prompt takes their names too, with the same result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import dpc_interp as dpc
from dpc_interp import DPCInterpError, Problem, SoftPrompt, Transcript
from dpc_interp.models.hooked import HookedModel

MODEL, PROMPT = "reasoner", "reasoner/story"
FOLDERS = Path(dpc.__file__).parent / "assets"
pytestmark = pytest.mark.usefixtures("untyped")
QUIET: dict[str, Any] = {"progress": False}
TUNING: dict[str, Any] = {"n_virtual_tokens": 2, "max_steps": 1, **QUIET}
RULE = dpc.TriggerRule("late_share", 0.5)


@pytest.fixture(scope="module")
def reasoner() -> HookedModel:
    return dpc.load_model(MODEL)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return dpc.load_problems("story", n=2)


@pytest.fixture(scope="module")
def tuned() -> SoftPrompt:
    return dpc.load_prompt(PROMPT)


@pytest.fixture(scope="module")
def runs(reasoner: HookedModel, problems: list[Problem], tuned: SoftPrompt) -> list[Transcript]:
    return dpc.generate(reasoner, problems, tuned, **QUIET)


def logits(context: Any) -> Tensor:
    """What a model reads in a context."""
    with context as run:
        return run(torch.tensor([[1, 40, 51]]))


def test_a_model_and_a_prompt_by_their_paths(reasoner: HookedModel, tuned: SoftPrompt) -> None:
    model, prompt = FOLDERS / MODEL, FOLDERS / "prompts" / PROMPT / "seed0"
    grid: dict[str, Any] = {"grid": {"gamma": [0]}, "methods": ["always"], "n": 2, **QUIET}
    by_path, loaded = dpc.ablate(model, "story", prompt, **grid), dpc.ablate(reasoner, "story", tuned, **grid)
    pd.testing.assert_frame_equal(by_path.drop(columns="model"), loaded.drop(columns="model"))
    assert by_path["model"].unique().tolist() == [str(model)]
    assert dpc.load_prompt(prompt, model).vectors.equal(tuned.vectors)


def test_what_is_neither(reasoner: HookedModel, tuned: SoftPrompt, problems: list[Problem]) -> None:
    with pytest.raises(DPCInterpError, match="a prompt is a SoftPrompt or its name, not Tensor; see load_prompt"):
        dpc.generate(reasoner, problems, tuned.vectors)
    with pytest.raises(DPCInterpError, match="a prompt is a SoftPrompt or its name, not NoneType"):
        dpc.evaluate(reasoner, problems, None)
    with pytest.raises(DPCInterpError, match="a model is a loaded model or its name, not SoftPrompt; see load_model"):
        dpc.generate(tuned, problems)
    with pytest.raises(DPCInterpError, match="problems and rows are mixed; load the rows"):
        dpc.generate(reasoner, [*problems, {"question": "1 + 1?", "answer": 2}])


CALLS: dict[str, Callable[[Any, Any, list[Transcript]], object]] = {
    "analyse": lambda m, p, runs: dpc.analyse(m, runs, p, **QUIET).flow,
    "case": lambda m, p, runs: dpc.case(m, runs[0], p).statistics.to_frame(),
    "causal_edges": lambda m, p, runs: (
        dpc.causal_edges(m, runs[:1], p, fractions=(0.5,), n_draws=1, n_groups=2, **QUIET).knockouts
    ),
    "check_model": lambda m, p, runs: dpc.check_model(m, prompt=p).table,
    "corrupted": lambda m, p, runs: logits(dpc.corrupted(m, p, dpc.CorruptionPlan((3,), gamma=10))),
    "drop_empty_rationales": lambda m, p, runs: dpc.drop_empty_rationales(m, runs),
    "evaluate": lambda m, p, runs: (
        dpc.evaluate(m, [run.problem for run in runs], p, ["dpc"], rule=RULE, **QUIET).instances
    ),
    "from_text": lambda m, p, runs: SoftPrompt.from_text(m, "Think step").vectors,
    "generate": lambda m, p, runs: [
        run.text for run in dpc.generate(m, [run.problem for run in runs], p, max_new_tokens=4, **QUIET)
    ],
    "head_gains": lambda m, p, runs: dpc.head_gains(m, runs[:1], p, **QUIET),
    "nearest_tokens": lambda m, p, runs: dpc.load_prompt(PROMPT).nearest_tokens(m),
    "prompted": lambda m, p, runs: logits(dpc.prompted(m, p)),
    "random": lambda m, p, runs: SoftPrompt.random(m, 2).vectors,
    "read_transcripts": lambda m, p, runs: [
        run.answer
        for run in dpc.read_transcripts(m, [run.problem for run in runs], [run.text for run in runs], prompt=p)
    ],
    "saliency": lambda m, p, runs: dpc.saliency(m, runs[0].tokens, p, len(runs[0].question_tokens)),
    "saliency_map": lambda m, p, runs: dpc.saliency_map(m, runs[0], p).values,
    "saliency_sanity": lambda m, p, runs: dpc.saliency_sanity(m, runs[:1], p, **QUIET),
    "sink_controls": lambda m, p, runs: dpc.sink_controls(m, runs, p, conditions=["trained"], **QUIET),
    "tune_prompt": lambda m, p, runs: dpc.tune_prompt(m, dpc.load_problems("story", "train", n=9), **TUNING).vectors,
    "view": lambda m, p, runs: repr(dpc.view(m, runs[0], p)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_model_and_a_prompt_by_their_names(
    name: str, reasoner: HookedModel, tuned: SoftPrompt, runs: list[Transcript]
) -> None:
    by_name, loaded = CALLS[name](MODEL, PROMPT, runs), CALLS[name](reasoner, tuned, runs)
    if isinstance(loaded, pd.DataFrame):
        pd.testing.assert_frame_equal(by_name, loaded)
    elif isinstance(loaded, Tensor):
        torch.testing.assert_close(by_name, loaded)
    else:
        assert by_name == loaded


def test_problems_by_their_name_or_as_rows(reasoner: HookedModel, problems: list[Problem], tmp_path: Path) -> None:
    def questions(given: Any) -> list[str]:
        return [run.problem.question for run in dpc.generate(reasoner, given, max_new_tokens=1, **QUIET)]

    expected = [problem.question for problem in problems]
    rows = [{"question": problem.question, "answer": problem.answer} for problem in problems]
    columns = {name: [row[name] for row in rows] for name in ("question", "answer")}
    by_id = {problem.id: problem for problem in problems}
    for given in (rows, pd.DataFrame(rows), iter(rows), columns, by_id.values(), pd.Series(problems)):
        assert questions(given) == expected
    assert questions("story") == [problem.question for problem in dpc.load_problems("story")]
    by_name = dpc.tune_prompt(reasoner, "story", validation="story", **TUNING)
    drawn = [dpc.load_problems("story", split) for split in ("train", "validation")]
    loaded = dpc.tune_prompt(reasoner, drawn[0], validation=drawn[1], **TUNING)
    torch.testing.assert_close(by_name.vectors, loaded.vectors)
    assert by_name.recipe == loaded.recipe
    file = tmp_path / "story.jsonl"  # has the name of a task, whose problems are others
    many = [{"question": f"{k} + 1?", "answer": k + 1} for k in range(250)]
    file.write_text("\n".join(map(json.dumps, many)))
    assert questions(file) == [row["question"] for row in many]
    with pytest.raises(DPCInterpError, match=r"story\.jsonl' has no validation split; give validation="):
        dpc.evaluate(reasoner, file, PROMPT)
    results = dpc.evaluate(reasoner, rows, "reasoner/story", ["dpc"], rule=RULE, **QUIET)
    assert results.runs[0].problem.task == "mine"
