"""Problems for evaluations with a random model, whose texts contain no answer.

The complete text therefore counts as the answer, and the gold answers are chosen so that some problems are answered
correctly, some only under corruption, and some never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, drop_empty_rationales, generate, load_problems
from dpc_interp.evaluation import jobs
from dpc_interp.models.hooked import HookedModel


@pytest.fixture(scope="module")
def text_is_the_answer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpc_interp.generation.transcript.extract_answer", lambda text, *_: text or None)
        yield


@pytest.fixture(scope="module")
def decoding() -> dict[str, Any]:
    """Keywords of `generate` and `evaluate`."""
    return {"max_new_tokens": 8, "progress": False}


@pytest.fixture(scope="module")
def draw(
    text_is_the_answer: None, model: HookedModel, prompt: SoftPrompt, decoding: dict[str, Any]
) -> Callable[[str], list[Problem]]:
    """Nine problems of a split: in turn correct, correct if token 2 is masked, wrong either way."""

    def draw_split(split: str) -> list[Problem]:
        drawn = load_problems("story", split, n=18, max_steps=2)
        runs = drop_empty_rationales(model, generate(model, drawn, prompt, **decoding))[:9]
        problems = [run.problem for run in runs]
        corrupted = generate(model, problems, prompt, plans=[CorruptionPlan((2,), 0.0, 25)] * len(runs), **decoding)
        golds = [
            (before.text, after.text, "neither")[k % 3]
            for k, (before, after) in enumerate(zip(runs, corrupted, strict=True))
        ]
        return [replace(problem, answer=gold) for problem, gold in zip(problems, golds, strict=True)]

    return draw_split


@pytest.fixture(scope="module")
def reported(draw: Callable[[str], list[Problem]]) -> list[Problem]:
    """Test problems."""
    return draw("test")


@pytest.fixture(scope="module")
def validation(draw: Callable[[str], list[Problem]]) -> list[Problem]:
    return draw("validation")


@pytest.fixture
def grid_arguments(
    model: HookedModel,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
) -> dict[str, Any]:
    """Arguments of `ablate` and the sweeps."""
    return {"models": model, "tasks": reported, "prompts": prompt, "validation": {"story": validation}, **decoding}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Number of shards that were generated and analysed; `stop_at` is the generated shard that is interrupted."""
    counts: dict[str, Any] = {"generate": 0, "analyse": 0, "stop_at": None}

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            if name == "generate" and counts["generate"] + 1 == counts["stop_at"]:
                raise KeyboardInterrupt
            counts[name] += 1
            return function(*args, **options)

        return call

    for name in ("generate", "analyse"):
        monkeypatch.setattr(jobs, name, counted(name, getattr(jobs, name)))
    return counts


@dataclass(frozen=True)
class ScaledAttention:
    """A context in which the attention of one layer is scaled."""

    layer: int
    factor: float

    def __call__(self, model: HookedModel) -> AbstractContextManager[object]:
        name = f"blocks.{self.layer}.attn.hook_pattern"
        return model.hooks(fwd_hooks=[(name, lambda pattern, hook: self.factor * pattern)])


@pytest.fixture(scope="session")
def scaled_attention() -> type[ScaledAttention]:
    return ScaledAttention
