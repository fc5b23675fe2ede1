"""What is asked: one `Problem`, the registry of tasks and splits that share no problem.

A synthetic task is a function `make(rng, n_steps) -> Problem` in the module of its name. A problem belongs to exactly
one split, decided by a hash of its question: no seed can move a question from train to test (METHOD 6). Benchmarks keep
their own test split; where they have no validation split, a hash takes it from train (`benchmarks.py`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from dpc_interp.errors import DPCInterpError, UnknownNameError

SYNTHETIC = ("story", "choice", "algebra", "rule")
"""The tasks that are generated; each is a module beside this one with `make` and `MAX_STEPS`."""

GENERATED = (*SYNTHETIC, "gsm_symbolic")
BENCHMARKS = ("gsm8k", "math", "math500", "aqua")

SPLITS = {"train": 80, "validation": 10, "test": 10}
"""Percent of all questions in each split."""
MOST_MISSES = 10_000
"""So many draws in a row without a new problem mean that there is none left."""


@dataclass(frozen=True)
class Problem:
    """One question with a written solution.

    `rationale` has one reasoning step per line and closes with the answer line; `answer` is the bare answer ("17",
    "B"); `n_steps` is the difficulty: the number of reasoning steps, the answer line not counted.
    """

    task: str
    question: str
    rationale: str
    answer: str
    n_steps: int
    id: str = ""


def check_distinct(problems: Sequence[Problem]) -> None:
    """Refuse problems that share an id: their rows could not be told apart."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DPCInterpError(f"two problems have the id {problem.id!r}; give each its own")
        seen.add(problem.id)


def question_hash(question: str) -> int:
    """A 64-bit hash of a question, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big")


def split_of(question: str) -> str:
    """The one split that `question` belongs to."""
    bucket = question_hash(question) % 100
    for split, percent in SPLITS.items():
        if bucket < percent:
            return split
        bucket -= percent
    raise AssertionError("SPLITS covers 100 percent")


def _maker(task: str) -> tuple[Callable[[random.Random, int], Problem], int]:
    module = import_module(f"dpc_interp.tasks.{task}")
    return module.make, module.MAX_STEPS


def has_validation(name: str) -> bool:
    """Whether `load_problems(name, "validation")` has problems of the same kind as the task `name`."""
    return name.partition("/")[0] in (*GENERATED, "gsm8k", "math", "aqua")


def load_problems(
    name: str | Iterable[Mapping[str, object]],
    split: str = "test",
    n: int | None = 200,
    seed: int = 0,
    max_steps: int | None = None,
) -> list[Problem]:
    """`n` problems of a task.

    Args:
        name: `story`, `choice`, `algebra`, `rule`; `gsm_symbolic`, or `gsm_symbolic/12,38` for some of its templates;
            `gsm8k`, `math`, `math500`, `aqua`; the path of a `.jsonl`, `.json` or `.parquet` file; or rows (dicts) of
            your own. Rows have `question`, `answer` and, where known, `rationale`, or the columns of a benchmark.
        split: `train`, `validation` or `test`. Files and rows have no splits of ours: the argument is not used.
        n: how many; None: all there are. Files and rows give their first.
        seed: of the draw. The first problems of a longer draw are the shorter draw.
        max_steps: the largest difficulty drawn; None: the task's own (4 where synthetic, in equal shares).

    Returns:
        Distinct problems, in a fixed order.

    Raises:
        UnknownNameError: no such task or split.
        DPCInterpError: `n` or `max_steps` below 1, a file that cannot be read so, a benchmark out of reach, or a
            package that is not installed.
    """
    from dpc_interp.tasks import benchmarks  # it builds on this module, as the tasks do

    if n is not None and n < 1:
        raise DPCInterpError(f"n is {n}; ask for at least 1 problem")
    if not isinstance(name, str):
        return benchmarks.problems_from(name, n=n, max_steps=max_steps)
    if name.endswith(benchmarks.FILES):
        return benchmarks.from_file(Path(name), n, max_steps)
    kind = "gsm_symbolic" if name.startswith("gsm_symbolic/") else name
    if kind not in (*GENERATED, *BENCHMARKS):
        known = [*GENERATED, *BENCHMARKS, "a path ending in .jsonl, .json or .parquet"]
        raise UnknownNameError("task", name, known)
    if split not in SPLITS:
        raise UnknownNameError("split", split, list(SPLITS))
    if kind in BENCHMARKS:
        return benchmarks.from_hub(name, split, n, seed, max_steps)
    if n is None:
        raise DPCInterpError(f"{name} is generated and has no end; give n")
    if kind == "gsm_symbolic":
        from dpc_interp.tasks import gsm_symbolic

        return gsm_symbolic.load(name, split, n, seed, max_steps)
    make, hardest = _maker(name)
    top = hardest if max_steps is None else max_steps
    if not 1 <= top <= hardest:
        raise DPCInterpError(f"max_steps is {max_steps}; {name} has problems of 1 to {hardest} steps")
    rng = random.Random(f"{name}/{split}/{seed}/{top}")

    def draw(found: int) -> Problem:
        problem = make(rng, 1 + found % top)
        return replace(problem, id=f"{name}-{question_hash(problem.question):016x}")

    return collect(draw, name, split, n)


def collect(draw: Callable[[int], Problem | None], name: str, split: str, n: int) -> list[Problem]:
    """`n` distinct problems of one split; `draw` is told how many there are, and may give None."""
    problems: dict[str, Problem] = {}
    misses = 0
    while len(problems) < n:
        problem = draw(len(problems))
        if problem is None or problem.question in problems or split_of(problem.question) != split:
            misses += 1
            if misses == MOST_MISSES:
                raise DPCInterpError(
                    f"{name} has hardly more than {len(problems)} such {split} problems; ask for fewer"
                )
        else:
            misses = 0
            problems[problem.question] = problem
    return list(problems.values())
