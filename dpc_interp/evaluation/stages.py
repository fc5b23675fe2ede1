"""The long work of an evaluation: transcripts and their analysis, each piece stored and timed.

A stage is named by what it is and by a hash of all that it depends on, and of nothing else: the model, the prompt, the
problems, the corruption, the options of decoding and of the analysis. Stages of different options can so share a store.
Corrupted answers are looked up one by one: methods, thresholds and sweeps share those of equal plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dpc_interp.analysis.analyse import Analysis, Target, analyse, with_rationale
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.store import RunStore, digest
from dpc_interp.lm.generation import Transcript, generate, question_tokens, transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import PromptEdit, SoftPrompt
from dpc_interp.tasks.problems import Problem

Intervention = Callable[[HookedModel], AbstractContextManager[object]]
"""Changes a model within a context; a frozen dataclass, so that its `repr` tells it from others (knock-out, ACT)."""


class Stages:
    """Stages of one model, prompt and store; a stage that is stored is read."""

    def __init__(
        self,
        model: HookedModel,
        store: RunStore,
        prompt: SoftPrompt,
        batch_size: int,
        progress: bool,
        model_key: str | None = None,
    ):
        self.model, self.store, self.prompt = model, store, prompt
        self.batch_size, self.progress = batch_size, progress
        self.model_key, self.prompt_key = model_key or model_digest(model), prompt_digest(prompt)
        self._timed: list[dict[str, object]] = []
        self._runs: dict[str, list[Transcript]] = {}
        self._analyses: dict[str, Analysis] = {}
        self._corrupted: dict[str, Sequence[int] | np.ndarray] = {}
        for frame in store.stored("corrupted-"):
            self._hold(frame)

    def runs(
        self,
        name: str,
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        max_new_tokens: int,
        draft_rationales: bool = False,
    ) -> list[Transcript]:
        """Transcripts of the problems with a prompt, or of the bare model."""

        def make() -> pd.DataFrame:
            drafts = self._written(problems) if draft_rationales else None
            tokens = self._generate(problems, prompt, None, drafts, max_new_tokens)
            return pd.DataFrame({"instance": [p.id for p in problems], "generated_tokens": tokens})

        key = self._key("" if prompt is None else self.prompt_key, max_new_tokens, problem_digest(problems))
        stage = f"{name}-{key}"
        if stage not in self._runs:
            frame = self._timed_stage(stage, make, _count_tokens)
            read = zip(problems, frame["generated_tokens"], strict=True)
            self._runs[stage] = [self._transcript(problem, ids) for problem, ids in read]
        return list(self._runs[stage])

    def corrupted(
        self,
        name: str,
        runs: Sequence[Transcript],
        plans: Mapping[str, PromptEdit] | None,
        max_new_tokens: int,
        within: Intervention | None = None,
    ) -> dict[str, Transcript]:
        """What is written, by problem id, for the problems of the prompted `runs` under corruption.

        Args:
            plans: by problem id, the corruption of the prompt; problems without one are left out. None: no corruption.
            within: a change of the model, in whose context is decoded.
        """
        chosen = [run for run in runs if plans is None or run.problem.id in plans]
        edits: list[PromptEdit | None] = [None if plans is None else plans[run.problem.id] for run in chosen]
        keys = [
            self._key(self.prompt_key, max_new_tokens, run.problem.question, edit, within)
            for run, edit in zip(chosen, edits, strict=True)
        ]
        new = [i for i, key in enumerate(keys) if key not in self._corrupted]
        if new:

            def make() -> pd.DataFrame:
                problems, drafts = [chosen[i].problem for i in new], [chosen[i].generated_tokens for i in new]
                of_new = None if plans is None else [plans[problem.id] for problem in problems]
                with nullcontext() if within is None else within(self.model):
                    tokens = self._generate(problems, self.prompt, of_new, drafts, max_new_tokens)
                return pd.DataFrame({"key": [keys[i] for i in new], "generated_tokens": tokens})

            stage = f"corrupted-{name.replace(' ', '-')}-{self._key(*(keys[i] for i in new))}"
            self._hold(self._timed_stage(stage, make, _count_tokens))
        return {
            run.problem.id: self._transcript(run.problem, self._corrupted[key])
            for run, key in zip(chosen, keys, strict=True)
        }

    def analysis(
        self, name: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        """The analysis of the runs that have a rationale; runs without one never trigger and are never corrupted."""
        read = problem_digest([run.problem for run in runs]), [run.generated_tokens.tolist() for run in runs]
        key = self._key(self.prompt_key, target, head_reduction, *read)
        if key not in self._analyses:
            self._analyses[key] = self._analyse(f"{name}-{key}", runs, target, head_reduction)
        return self._analyses[key]

    def timings(self) -> pd.DataFrame:
        """Seconds and tokens (rows, for an analysis) of each stage that was computed."""
        return pd.DataFrame(self._timed, columns=["stage", "seconds", "tokens"])

    def _generate(
        self,
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        plans: Sequence[PromptEdit] | None,
        drafts: Sequence[Tensor] | None,
        max_new_tokens: int,
    ) -> list[list[int]]:
        made = generate(
            self.model,
            problems,
            prompt,
            plans=plans,
            drafts=drafts,
            max_new_tokens=max_new_tokens,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        return [run.generated_tokens.tolist() for run in made]

    def _analyse(
        self, stage: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        usable = with_rationale(runs, self.model)
        if not usable:
            raise DPCInterpError("no answer has a rationale to analyse; use a prompt that makes the model reason")
        made: list[Analysis] = []

        def frame(which: str) -> Callable[[], pd.DataFrame]:
            def make() -> pd.DataFrame:
                if not made:
                    made.append(
                        analyse(
                            self.model,
                            usable,
                            self.prompt,
                            target=target,
                            head_reduction=head_reduction,
                            progress=self.progress,
                        )
                    )
                return getattr(made[0], which)

            return make

        names = ("flow", "accumulation", "tokens", "instances")
        frames = {which: self._timed_stage(f"{stage}-{which}", frame(which), len) for which in names}
        return Analysis(
            **frames, options={"prompt": self.prompt.name, "target": target, "head_reduction": head_reduction}
        )

    def _key(self, *parts: object) -> str:
        return digest(self.model_key.encode(), *(repr(part).encode() for part in parts))

    def _hold(self, frame: pd.DataFrame) -> None:
        self._corrupted |= dict(zip(frame["key"], frame["generated_tokens"], strict=True))

    def _transcript(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Transcript:
        generated = torch.tensor(np.asarray(ids, dtype=np.int64))
        return transcript(self.model, problem, question_tokens(self.model, problem.question), generated)

    def _written(self, problems: Sequence[Problem]) -> list[Tensor]:
        """Token ids of the written rationales, each with the stop token."""
        tokenizer = tokenizer_of(self.model)
        coded = [tokenizer(problem.rationale, add_special_tokens=False).input_ids for problem in problems]
        return [torch.tensor([*ids, tokenizer.eos_token_id]) for ids in coded]

    def _timed_stage(
        self, name: str, make: Callable[[], pd.DataFrame], count: Callable[[pd.DataFrame], int]
    ) -> pd.DataFrame:
        def timed() -> pd.DataFrame:
            start = time.perf_counter()
            frame = make()
            self._timed.append({"stage": name, "seconds": time.perf_counter() - start, "tokens": count(frame)})
            return frame

        return self.store.stage(name, timed)


def _count_tokens(frame: pd.DataFrame) -> int:
    return int(frame["generated_tokens"].str.len().sum())


def problem_digest(problems: Sequence[Problem]) -> str:
    """A hash of what is asked, and of how it is solved."""
    return digest(*("\n".join([p.id, p.question, p.answer, p.rationale]).encode() for p in problems))


def prompt_digest(prompt: SoftPrompt) -> str:
    """A hash of a prompt's vectors."""
    return digest(prompt.vectors.detach().cpu().float().numpy().tobytes())


def model_digest(model: HookedModel) -> str:
    """A hash of a model's weights."""
    return digest(*(p.detach().cpu().float().numpy().tobytes() for p in model.parameters()))
