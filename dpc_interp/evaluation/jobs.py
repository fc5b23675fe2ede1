"""What a shard is made by: a job that can be sent to another process, which calls it with its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from dpc_interp.analysis.analyse import Target, analyse
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.evaluation.engine import Frames
from dpc_interp.lm.generation import Transcript, generate
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import PromptEdit, SoftPrompt
from dpc_interp.tasks.problems import Problem

Intervention = Callable[[HookedModel], AbstractContextManager[object]]
"""Changes a model within a context; a frozen dataclass, so that its `repr` tells it from others (knock-out, ACT)."""


@dataclass(frozen=True)
class Answers:
    """A shard of answers: rows of `columns` and generated_tokens."""

    columns: Mapping[str, list[str]]
    problems: list[Problem]
    prompt: SoftPrompt | None
    plans: list[PromptEdit] | None
    drafts: list[Tensor] | None
    max_new_tokens: int
    batch_size: int
    within: Intervention | None
    progress: bool

    def __call__(self, model: HookedModel) -> Frames:
        """Generate them."""
        with nullcontext() if self.within is None else self.within(model):
            made = generate(
                model,
                self.problems,
                self.prompt,
                plans=self.plans,
                drafts=self.drafts,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        tokens = [run.generated_tokens.tolist() for run in made]
        return {"answers": pd.DataFrame({**self.columns, "generated_tokens": tokens})}


@dataclass(frozen=True)
class Analysed:
    """A shard of an analysis: the frames of `Analysis`."""

    runs: list[Transcript]
    prompt: SoftPrompt
    target: Target
    head_reduction: HeadReduction
    progress: bool

    def __call__(self, model: HookedModel) -> Frames:
        """Analyse them."""
        found = analyse(
            model,
            self.runs,
            self.prompt,
            target=self.target,
            head_reduction=self.head_reduction,
            progress=self.progress,
        )
        return {name: getattr(found, name) for name in ("flow", "accumulation", "tokens", "instances")}
