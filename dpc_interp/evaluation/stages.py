"""The long work of an evaluation: transcripts and their analysis, in shards, each stored and timed as it is finished.

A stage is named by what it is and by a hash of all that it depends on, and of nothing else: the model, the prompt, the
problems, the corruption, the options of decoding and of the analysis, the size of its shards. Stages of different
options can so share a store. Its shards are parts of its instances in the order of their length, so that they, and the
batches within them, are the same whatever was stored before. Corrupted answers are looked up one by one: methods,
thresholds and sweeps share those of equal plans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.analyse import Analysis, Target, with_rationale
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.engine import Done, Engine, Frames, Job
from dpc_interp.evaluation.jobs import Analysed, Answers, Intervention
from dpc_interp.evaluation.store import RunStore, digest
from dpc_interp.lm.generation import Transcript, by_length, question_tokens, questions_of, transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.oom import check_batch_size
from dpc_interp.lm.soft_prompt import PromptEdit, SoftPrompt, check_length
from dpc_interp.tasks.problems import Problem

SHARD_SIZE = 256
MOST_ANALYSED = 64
"""Instances in a shard of an analysis, at most: they cost more than answers. Four of its batches."""
Item = TypeVar("Item")


class Stages:
    """Stages of one model, prompt and store; a stage that is stored is read, one that is begun goes on."""

    def __init__(
        self,
        model: HookedModel,
        store: RunStore,
        prompt: SoftPrompt,
        engine: Engine,
        *,
        batch_size: int,
        shard_size: int,
        progress: bool,
        model_key: str | None = None,
    ):
        self.model, self.store, self.prompt, self.engine = model, store, prompt, engine
        self.batch_size, self.shard_size, self.progress = batch_size, shard_size, progress
        self.model_key, self.prompt_key = model_key or model_digest(model), prompt_digest(prompt)
        self._runs: dict[str, list[Transcript]] = {}
        self._analyses: dict[str, Analysis] = {}
        self._corrupted: dict[str, Sequence[int] | np.ndarray] = {}
        self._whole: set[str] = set()
        for whole, frames in store.stored("corrupted-"):
            self._hold(frames["answers"], whole)

    def runs(
        self,
        name: str,
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        max_new_tokens: int,
        draft_rationales: bool = False,
    ) -> list[Transcript]:
        """Transcripts of the problems with a prompt, or of the bare model."""
        key = self._key(
            "" if prompt is None else self.prompt_key, max_new_tokens, problem_digest(problems), self.shard_size
        )
        if key not in self._runs:
            drafts = self._written(problems) if draft_rationales else None
            columns = {"instance": [problem.id for problem in problems]}
            frame = self._answers(f"{name}-{key}", columns, problems, prompt, None, drafts, max_new_tokens, None)
            tokens = dict(zip(frame["instance"], frame["generated_tokens"], strict=True))
            self._runs[key] = [self._transcript(problem, tokens[problem.id]) for problem in problems]
        return list(self._runs[key])

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

        def lacking(held: set[str]) -> tuple[list[int], str]:
            new = [i for i, key in enumerate(keys) if key not in held]
            told = re.sub(r"[^\w.,+-]+", "-", name)[:80]
            return new, f"corrupted-{told}-{self._key(self.shard_size, *(keys[i] for i in new))}"

        new, stage = lacking(self._whole)
        if not self.store.begun(stage):  # a begun stage goes on with the shards that it began with
            new, stage = lacking(set(self._corrupted))
        if new:
            problems, drafts = [chosen[i].problem for i in new], [chosen[i].generated_tokens for i in new]
            of_new = None if plans is None else [plans[problem.id] for problem in problems]
            columns = {"instance": [problem.id for problem in problems], "key": [keys[i] for i in new]}
            self._hold(
                self._answers(stage, columns, problems, self.prompt, of_new, drafts, max_new_tokens, within), True
            )
        return {
            run.problem.id: self._transcript(run.problem, self._corrupted[key])
            for run, key in zip(chosen, keys, strict=True)
        }

    def analysis(
        self, name: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        """The analysis of the runs that have a rationale; runs without one never trigger and are never corrupted."""
        read = problem_digest([run.problem for run in runs]), [run.generated_tokens.tolist() for run in runs]
        key = self._key(self.prompt_key, target, head_reduction, *read, self.shard_size)
        if key not in self._analyses:
            self._analyses[key] = self._analyse(f"{name}-{key}", runs, target, head_reduction)
        return self._analyses[key]

    def _answers(
        self,
        stage: str,
        columns: Mapping[str, list[str]],
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        plans: Sequence[PromptEdit] | None,
        drafts: Sequence[Tensor] | None,
        max_new_tokens: int,
        within: Intervention | None,
    ) -> pd.DataFrame:
        n_virtual = 0 if prompt is None else prompt.n_virtual
        order = by_length([len(question) for question in questions_of(self.model, problems, n_virtual, max_new_tokens)])
        jobs = [
            Answers(
                {column: _taken(values, part) for column, values in columns.items()},
                _taken(problems, part),
                prompt,
                None if plans is None else _taken(plans, part),
                None if drafts is None else _taken(drafts, part),
                max_new_tokens,
                self.batch_size,
                within,
                self.progress,
            )
            for part in _parts(order, self.shard_size)
        ]
        return self._made(stage, jobs, lambda made: int(made["answers"]["generated_tokens"].str.len().sum()))["answers"]

    def _analyse(
        self, stage: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        usable = with_rationale(runs, self.model)
        if not usable:
            raise DPCInterpError("no answer has a rationale to analyse; use a prompt that makes the model reason")
        solved = self._written([run.problem for run in usable]) if target == "gold" else None
        answers = [run.generated_tokens for run in usable] if solved is None else solved
        lengths = [len(run.question_tokens) + len(answer) for run, answer in zip(usable, answers, strict=True)]
        check_length(self.model, self.prompt.n_virtual + max(lengths))
        jobs = [
            Analysed(_taken(usable, part), self.prompt, target, head_reduction, self.progress)
            for part in _parts(by_length(lengths), min(self.shard_size, MOST_ANALYSED))
        ]
        made = self._made(stage, jobs, lambda made: int(made["instances"]["n_rationale_tokens"].sum()))
        rank = {run.problem.id: i for i, run in enumerate(usable)}
        frames = {
            name: frame.sort_values("instance", key=lambda ids: ids.map(rank), kind="stable", ignore_index=True)
            for name, frame in made.items()
        }
        return Analysis(
            **frames, options={"prompt": self.prompt.name, "target": target, "head_reduction": head_reduction}
        )

    def _made(self, stage: str, jobs: Sequence[Job], tokens: Callable[[Frames], int]) -> Frames:
        def make(missing: Sequence[Job]) -> Iterator[Done]:
            done = self.engine.map(self.model, missing)
            hidden = not self.progress or len(missing) == 1
            yield from tqdm(done, desc=stage, total=len(missing), unit="shard", disable=hidden, leave=False)

        return self.store.sharded(stage, jobs, make, tokens)

    def _key(self, *parts: object) -> str:
        return digest(self.model_key.encode(), *(repr(part).encode() for part in parts))

    def _hold(self, frame: pd.DataFrame, whole: bool) -> None:
        self._corrupted |= dict(zip(frame["key"], frame["generated_tokens"], strict=True))
        if whole:
            self._whole |= set(frame["key"])

    def _transcript(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Transcript:
        generated = torch.tensor(np.asarray(ids, dtype=np.int64))
        return transcript(self.model, problem, question_tokens(self.model, problem.question), generated)

    def _written(self, problems: Sequence[Problem]) -> list[Tensor]:
        """Token ids of the written rationales, each with the stop token."""
        tokenizer = tokenizer_of(self.model)
        coded = [tokenizer(problem.rationale, add_special_tokens=False).input_ids for problem in problems]
        return [torch.tensor([*ids, tokenizer.eos_token_id]) for ids in coded]


def _taken(values: Sequence[Item], part: Sequence[int]) -> list[Item]:
    return [values[i] for i in part]


def _parts(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def check_sizes(batch_size: int, shard_size: int) -> None:
    """Refuse batches or shards of nothing."""
    check_batch_size(batch_size)
    if shard_size < 1:
        raise DPCInterpError(f"shard_size is {shard_size}; give at least 1")


def problem_digest(problems: Sequence[Problem]) -> str:
    """A hash of what is asked, and of how it is solved."""
    return digest(*("\n".join([p.id, p.question, p.answer, p.rationale]).encode() for p in problems))


def prompt_digest(prompt: SoftPrompt) -> str:
    """A hash of a prompt's vectors."""
    return digest(prompt.vectors.detach().cpu().float().numpy().tobytes())


def model_digest(model: HookedModel) -> str:
    """A hash of a model's weights and of their precision."""
    weights = list(model.parameters())
    precision = ",".join(str(weight.dtype) for weight in weights).encode()
    return digest(precision, *(weight.detach().cpu().float().numpy().tobytes() for weight in weights))
