"""The long work of an evaluation: transcripts and their analysis, each piece stored and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dpc_interp.analysis.analyse import Analysis, Target, analyse, with_rationale
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.corruption.plan import CorruptionPlan
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.store import RunStore, digest
from dpc_interp.lm.generation import Transcript, generate, question_tokens, transcript
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import SoftPrompt
from dpc_interp.tasks.problems import Problem

TARGET: Target = "generated"
HEADS: HeadReduction = "abs_of_sum"
"""How an evaluation is analysed: the one way that needs no label."""


class Stages:
    """Stages of one model, prompt and store; a stage that is stored is read."""

    def __init__(
        self,
        model: HookedModel,
        store: RunStore,
        prompt: SoftPrompt,
        max_new_tokens: int,
        batch_size: int,
        progress: bool,
    ):
        self.model, self.store, self.prompt = model, store, prompt
        self.max_new_tokens, self.batch_size, self.progress = max_new_tokens, batch_size, progress
        self._timed: list[dict[str, object]] = []

    def runs(
        self,
        name: str,
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        plans: Sequence[CorruptionPlan] | None = None,
        drafts: Sequence[Tensor] | None = None,
    ) -> list[Transcript]:
        """Transcripts of a stage."""

        def make() -> pd.DataFrame:
            made = generate(
                self.model,
                problems,
                prompt,
                plans=plans,
                drafts=drafts,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                progress=self.progress,
            )
            tokens = [run.generated_tokens.tolist() for run in made]
            return pd.DataFrame({"instance": [p.id for p in problems], "generated_tokens": tokens})

        frame = self._timed_stage(name, make, lambda frame: int(frame["generated_tokens"].str.len().sum()))
        rows = zip(problems, frame["generated_tokens"], strict=True)
        return [
            transcript(
                self.model, p, question_tokens(self.model, p.question), torch.tensor(np.asarray(ids, dtype=np.int64))
            )
            for p, ids in rows
        ]

    def corrupted(
        self, name: str, pt: Sequence[Transcript], needed: np.ndarray, plans: dict[str, CorruptionPlan]
    ) -> dict[str, Transcript]:
        """Corrupted transcripts, by problem id, of the needed `pt` runs that have a plan."""
        chosen = [run for run, wanted in zip(pt, needed, strict=True) if wanted and run.problem.id in plans]
        if not chosen:
            return {}
        problems = [run.problem for run in chosen]
        stage = f"corrupted-{name.replace(' ', '-')}-{problem_digest(problems)}"
        drafts = [run.generated_tokens for run in chosen]
        runs = self.runs(stage, problems, self.prompt, [plans[p.id] for p in problems], drafts)
        return {run.problem.id: run for run in runs}

    def analysis(self, name: str, runs: Sequence[Transcript]) -> Analysis:
        """The analysis of the runs that have a rationale; runs without one never trigger and are never corrupted."""
        usable = with_rationale(runs, self.model)
        if not usable:
            raise DPCInterpError("no answer has a rationale to analyse; use a prompt that makes the model reason")
        made: list[Analysis] = []

        def frame(which: str) -> Callable[[], pd.DataFrame]:
            def make() -> pd.DataFrame:
                if not made:
                    made.append(
                        analyse(
                            self.model, usable, self.prompt, target=TARGET, head_reduction=HEADS, progress=self.progress
                        )
                    )
                return getattr(made[0], which)

            return make

        names = ("flow", "accumulation", "tokens", "instances")
        frames = {which: self._timed_stage(f"{name}-{which}", frame(which), len) for which in names}
        return Analysis(**frames, options={"prompt": self.prompt.name, "target": TARGET, "head_reduction": HEADS})

    def _timed_stage(
        self, name: str, make: Callable[[], pd.DataFrame], count: Callable[[pd.DataFrame], int]
    ) -> pd.DataFrame:
        def timed() -> pd.DataFrame:
            start = time.perf_counter()
            frame = make()
            self._timed.append({"stage": name, "seconds": time.perf_counter() - start, "tokens": count(frame)})
            return frame

        return self.store.stage(name, timed)

    def timings(self) -> pd.DataFrame:
        """Seconds and tokens (rows, for an analysis) of each stage that was computed."""
        return pd.DataFrame(self._timed, columns=["stage", "seconds", "tokens"])


def problem_digest(problems: Sequence[Problem]) -> str:
    """A hash of what is asked."""
    return digest(*("\n".join([p.id, p.question, p.answer]).encode() for p in problems))
