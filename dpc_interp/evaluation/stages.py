"""The stages of an evaluation, generation and analysis, computed in shards that are stored and timed as they finish.

The name of a stage is its kind and a hash of everything that it depends on, and nothing else: the model, the prompt,
the problems, the corruption, the options of decoding and of the analysis, and the shard size. Stages of different
options can therefore share a store. Shards are cut from the instances sorted by length, so that they, and the batches
within them, do not depend on what was stored before. Corrupted answers are looked up one by one: methods, thresholds
and sweeps share those of equal plans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.analyse import Analysis, drop_empty_rationales
from dpc_interp.analysis.options import HeadReduction, Target
from dpc_interp.analysis.schema import in_order_of
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.jobs import AnalyseShard, GenerateShard, Intervention
from dpc_interp.execution.batch_splits import by_length
from dpc_interp.execution.digest import digest, model_digest
from dpc_interp.execution.engine import Engine, Frames, Job, JobResult
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.execution.store import RunStore
from dpc_interp.generation.text_options import TextOptions, name_of
from dpc_interp.generation.transcript import Transcript, make_transcript
from dpc_interp.models.encoding import encode_questions, encode_rationale
from dpc_interp.models.hooked import HookedModel, check_length
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem

MAX_ANALYSE_SHARD = 64
"""Instances in a shard of an analysis, at most: they cost more than answers. Four of its batches."""
Item = TypeVar("Item")


class Stages:
    """The stages of one model, prompt and store. A stored stage is read, an interrupted one is completed.

    Args:
        model: that generates and is analysed.
        store: where shards are kept.
        prompt: in front of each question.
        engine: computes the shards.
        run: batch and shard sizes, draft tokens and progress bars.
        model_key: hash of the model; None: computed here.
    """

    def __init__(
        self,
        model: HookedModel,
        store: RunStore,
        prompt: SoftPrompt,
        engine: Engine,
        run: RunConfig,
        *,
        model_key: str | None = None,
    ):
        self.model, self.store, self.prompt, self.engine, self.run = model, store, prompt, engine, run
        self.model_key, self.prompt_key = model_key or model_digest(model), prompt_digest(prompt)
        self._runs: dict[tuple[str, str], list[Transcript]] = {}
        self._analyses: dict[str, Analysis] = {}
        self._corrupted: dict[str, Sequence[int] | np.ndarray] = {}
        self._complete: set[str] = set()  # keys of corrupted answers whose stage is complete
        for is_complete, frames in store.stored("corrupted-"):
            self._add_corrupted(frames["answers"], is_complete)

    def runs(
        self,
        name: str,
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        text: TextOptions,
        draft: bool = False,
    ) -> list[Transcript]:
        """Transcripts of the problems with a prompt, or of the bare model.

        Args:
            name: name of the stage, before its hash.
            problems: in the order of the transcripts.
            prompt: None: the bare model.
            text: how texts are generated; the format of a question is that of the prompt where `text` gives none, for
                the bare model too.
            draft: use the written rationales as draft tokens where `run.speculate_from_gold` says so.
        """
        prompt_key = "" if prompt is None else self.prompt_key
        text = text.for_prompt(self.prompt.recipe)
        questions = self._questions(problems, text)
        key = self._key(prompt_key, *_of_text(text), problem_digest(problems), *questions, self.run.shard_size)
        if (read := (key, str(name_of(text.extraction)))) not in self._runs:
            drafts = self._gold_answers(problems) if draft and self.run.speculate_from_gold else None
            columns = {"instance": [problem.id for problem in problems]}
            jobs = self._generate_jobs(columns, problems, prompt, None, drafts, text, None)
            frame = self._generate(f"{name}-{key}", jobs)
            tokens = dict(zip(frame["instance"], frame["generated_tokens"], strict=True))
            self._runs[read] = [
                self._transcript(problem, question, tokens[problem.id], text)
                for problem, question in zip(problems, questions, strict=True)
            ]
        return list(self._runs[read])

    def corrupted(
        self,
        name: str,
        runs: Sequence[Transcript],
        plans: Mapping[str, PromptEdit] | None,
        text: TextOptions,
        within: Intervention | None = None,
    ) -> dict[str, Transcript]:
        """Transcripts under corruption, by problem id, of the problems of the prompted `runs`.

        Args:
            name: name of the stage.
            runs: transcripts without corruption; they serve as draft tokens.
            plans: by problem id, the corruption of the prompt; problems without one are left out. None: no corruption.
            text: how texts are generated.
            within: a change of the model during generation.
        """
        text = text.for_prompt(self.prompt.recipe)
        chosen = [run for run in runs if plans is None or run.problem.id in plans]
        keys = self._corrupt(
            name, [(run, None if plans is None else plans[run.problem.id]) for run in chosen], text, within
        )
        return {
            run.problem.id: self._transcript(run.problem, run.question_tokens.tolist(), self._corrupted[key], text)
            for run, key in zip(chosen, keys, strict=True)
        }

    def corrupt_ahead(
        self, runs: Sequence[Transcript], plans: Sequence[Mapping[str, PromptEdit]], text: TextOptions
    ) -> None:
        """Generate the texts of several corruptions in common batches, where `corrupted` finds them afterwards.

        Args:
            runs: transcripts without corruption; they serve as draft tokens.
            plans: each as in `corrupted`.
            text: how texts are generated.
        """
        pairs = [(run, by_id[run.problem.id]) for by_id in plans for run in runs if run.problem.id in by_id]
        self._corrupt("ahead", pairs, text.for_prompt(self.prompt.recipe), None)

    def _corrupt(
        self,
        name: str,
        pairs: Sequence[tuple[Transcript, PromptEdit | None]],
        text: TextOptions,
        within: Intervention | None,
    ) -> list[str]:
        """Generate the corrupted texts that are missing; return the key of each pair in `_corrupted`."""
        keys = [
            self._key(self.prompt_key, *_of_text(text), run.question_tokens.tolist(), edit, within)
            for run, edit in pairs
        ]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}  # equal corruptions are one text

        def missing_from(known: set[str]) -> tuple[list[int], str]:
            missing = sorted(i for key, i in first.items() if key not in known)
            label = re.sub(r"[^\w.,+-]+", "-", name)[:80]
            return missing, f"corrupted-{label}-{self._key(self.run.shard_size, *(keys[i] for i in missing))}"

        missing, stage = missing_from(self._complete)
        if not self.store.has_shards(stage):  # an interrupted stage is completed with the shards that it started with
            missing, stage = missing_from(set(self._corrupted))
        if missing:
            problems, drafts = [pairs[i][0].problem for i in missing], [pairs[i][0].generated_tokens for i in missing]
            edits = [edit for edit in (pairs[i][1] for i in missing) if edit is not None]
            missing_plans = edits if edits else None  # a change of the model during generation has no plans
            columns = {"instance": [problem.id for problem in problems], "key": [keys[i] for i in missing]}
            jobs = self._generate_jobs(columns, problems, self.prompt, missing_plans, drafts, text, within)
            self._add_corrupted(self._generate(stage, jobs), True)
        return keys

    def analysis(
        self, name: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        """The analysis of the runs that have a rationale; runs without one never fire and are never corrupted."""
        read = problem_digest([run.problem for run in runs]), [run.generated_tokens.tolist() for run in runs]
        key = self._key(self.prompt_key, target, head_reduction, *read, self.run.shard_size)
        if key not in self._analyses:
            self._analyses[key] = self._analyse(f"{name}-{key}", runs, target, head_reduction)
        # the numbers do not depend on how answers are read, and `correct` does
        analysis, correct = self._analyses[key], {run.problem.id: run.correct for run in runs}
        now = analysis.instances["instance"].map(correct).astype(bool)
        if now.equals(analysis.instances["correct"]):
            return analysis
        return replace(analysis, instances=analysis.instances.assign(correct=now))

    def _generate_jobs(
        self,
        columns: Mapping[str, list[str]],
        problems: Sequence[Problem],
        prompt: SoftPrompt | None,
        plans: Sequence[PromptEdit] | None,
        drafts: Sequence[Tensor] | None,
        text: TextOptions,
        within: Intervention | None,
    ) -> list[Job[Frames]]:
        n_virtual = 0 if prompt is None else prompt.n_virtual
        questions = encode_questions(
            self.model, problems, n_virtual, text.max_new_tokens or 0, given=text.question_format
        )
        return [
            GenerateShard(
                {column: _pick(values, part) for column, values in columns.items()},
                _pick(problems, part),
                prompt,
                None if plans is None else _pick(plans, part),
                None if drafts is None else _pick(drafts, part),
                text,
                self.run.batch_size,
                within,
                self.run.progress,
            )
            for part in _parts(by_length([len(question) for question in questions]), self.run.shard_size)
        ]

    def _generate(self, stage: str, jobs: Sequence[Job[Frames]]) -> pd.DataFrame:
        return self._compute(stage, jobs, lambda frames: int(frames["answers"]["generated_tokens"].str.len().sum()))[
            "answers"
        ]

    def _analyse(
        self, stage: str, runs: Sequence[Transcript], target: Target, head_reduction: HeadReduction
    ) -> Analysis:
        usable = drop_empty_rationales(self.model, runs)
        if not usable:
            raise DPCInterpError("no answer has a rationale to analyse; use a prompt that makes the model reason")
        answers = [run.generated_tokens for run in usable]
        if target == "gold":
            answers = self._gold_answers([run.problem for run in usable])
        lengths = [len(run.question_tokens) + len(answer) for run, answer in zip(usable, answers, strict=True)]
        check_length(self.model, self.prompt.n_virtual + max(lengths))
        jobs = [
            AnalyseShard(_pick(usable, part), self.prompt, target, head_reduction, self.run.progress)
            for part in _parts(by_length(lengths), min(self.run.shard_size, MAX_ANALYSE_SHARD))
        ]
        frames = self._compute(stage, jobs, lambda frames: int(frames["instances"]["n_rationale_tokens"].sum()))
        ids = [run.problem.id for run in usable]
        return Analysis(
            **{name: in_order_of(frame, ids) for name, frame in frames.items()},
            options={"prompt": self.prompt.name, "target": target, "head_reduction": head_reduction},
        )

    def _compute(self, stage: str, jobs: Sequence[Job[Frames]], count_tokens: Callable[[Frames], int]) -> Frames:
        def compute_missing(missing: Sequence[Job[Frames]]) -> Iterator[JobResult[Frames]]:
            results = self.engine.map(self.model, missing)
            hidden = not self.run.progress or len(missing) == 1
            yield from tqdm(results, desc=stage, total=len(missing), unit="shard", disable=hidden, leave=False)

        return self.store.sharded(stage, jobs, compute_missing, count_tokens)

    def _key(self, *parts: object) -> str:
        return digest(self.model_key.encode(), *(repr(part).encode() for part in parts))

    def _add_corrupted(self, frame: pd.DataFrame, is_complete: bool) -> None:
        self._corrupted |= dict(zip(frame["key"], frame["generated_tokens"], strict=True))
        if is_complete:
            self._complete |= set(frame["key"])

    def _questions(self, problems: Sequence[Problem], text: TextOptions) -> list[list[int]]:
        """The token ids of each question, which hold all that a question format changes."""
        encoded = encode_questions(self.model, problems, 0, 0, given=text.question_format)
        return [question.tolist() for question in encoded]

    def _transcript(
        self, problem: Problem, question: Sequence[int], ids: Sequence[int] | np.ndarray, text: TextOptions
    ) -> Transcript:
        generated = torch.tensor(np.asarray(ids, dtype=np.int64))
        return make_transcript(
            self.model,
            problem,
            torch.tensor(question),
            generated,
            max_new_tokens=text.max_new_tokens,
            extraction=text.extraction,
        )

    def _gold_answers(self, problems: Sequence[Problem]) -> list[Tensor]:
        return [encode_rationale(self.model, problem.rationale) for problem in problems]


def _pick(values: Sequence[Item], indices: Sequence[int]) -> list[Item]:
    return [values[i] for i in indices]


def _parts(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _of_text(text: TextOptions) -> tuple[object, ...]:
    """What decides generated tokens, apart from the question; answers are read again from stored tokens."""
    return text.max_new_tokens, text.stop_strings


def problem_digest(problems: Sequence[Problem]) -> str:
    """A hash of the questions, answers and rationales, and of how the answers are read."""
    return digest(
        *("\n".join([p.id, p.question, p.answer, p.rationale, name_of(p.extraction)]).encode() for p in problems)
    )


def prompt_digest(prompt: SoftPrompt) -> str:
    """A hash of a prompt's vectors."""
    return digest(prompt.vectors.detach().cpu().float().numpy().tobytes())
