"""The jobs of an evaluation: each computes one shard, and can be sent to another process with its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from dpc_interp.analysis.analyse import analyse
from dpc_interp.analysis.options import HeadReduction, Target
from dpc_interp.execution.engine import Frames
from dpc_interp.generation.generate import generate
from dpc_interp.generation.stopping import UnfinishedWarning
from dpc_interp.generation.text_options import TextOptions
from dpc_interp.generation.transcript import Transcript
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem

Intervention = Callable[[HookedModel], AbstractContextManager[object]]
"""Maps a model to a context in which it is changed (knock-out, ACT). A frozen dataclass: its repr identifies it."""


@dataclass(frozen=True)
class GenerateShard:
    """Generates one shard of answers.

    Attributes:
        columns: further columns of the frame, one value per problem.
        problems: that are answered.
        prompt: in front of each question; None: the bare model.
        plans: one corruption of the prompt per problem, or None.
        draft_tokens: a likely answer for each problem, or None.
        text: how texts are generated, with the length at which they are cut off.
        batch_size: see `generate`.
        within: a change of the model during generation, or None.
        progress: show a progress bar.
    """

    columns: Mapping[str, list[str]]
    problems: list[Problem]
    prompt: SoftPrompt | None
    plans: list[PromptEdit] | None
    draft_tokens: list[Tensor] | None
    text: TextOptions
    batch_size: int
    within: Intervention | None
    progress: bool

    def __call__(self, model: HookedModel) -> Frames:
        """The frame `answers`: `columns`, and generated_tokens (a list of token ids)."""
        # shards do not warn of texts that were cut off: the caller sees all of them
        with nullcontext() if self.within is None else self.within(model), warnings.catch_warnings():
            warnings.simplefilter("ignore", UnfinishedWarning)
            runs = generate(
                model,
                self.problems,
                self.prompt,
                plans=self.plans,
                draft_tokens=self.draft_tokens,
                max_new_tokens=self.text.max_new_tokens,
                template=self.text.question_format,
                stop_strings=self.text.stop_strings,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        tokens = [run.generated_tokens.tolist() for run in runs]
        return {"answers": pd.DataFrame({**self.columns, "generated_tokens": tokens})}


@dataclass(frozen=True)
class AnalyseShard:
    """Analyses one shard of transcripts; the attributes are arguments of `analyse`."""

    runs: list[Transcript]
    prompt: SoftPrompt
    target: Target
    head_reduction: HeadReduction
    progress: bool

    def __call__(self, model: HookedModel) -> Frames:
        """The frames of `Analysis`, by name."""
        return analyse(
            model,
            self.runs,
            self.prompt,
            target=self.target,
            head_reduction=self.head_reduction,
            progress=self.progress,
        ).frames
