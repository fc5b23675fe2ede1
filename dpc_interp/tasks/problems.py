"""What is asked: one `Problem`, the registry of tasks and splits that share no problem.

A synthetic task is a function `make(rng, n_steps) -> Problem` in the module of its name. A problem belongs to exactly
one split, decided by a hash of its question: no seed can move a question from train to test (METHOD 6).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.tasks.answers import answer_start

SYNTHETIC = ("story", "choice", "algebra", "rule")
"""The tasks that are generated; each is a module beside this one with `make` and `MAX_STEPS`."""

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


def load_problems(
    name: str, split: str = "test", n: int | None = 200, seed: int = 0, max_steps: int | None = None
) -> list[Problem]:
    """`n` problems of a task.

    Args:
        name: `story`, `choice`, `algebra`, `rule`, or the path of a `.jsonl` file whose rows have `question`, `answer`
            and, where known, `rationale`.
        split: `train`, `validation` or `test`. A `.jsonl` file has no splits of ours: the argument is not used.
        n: how many; None reads a whole `.jsonl` file.
        seed: of the draw. The first problems of a longer draw are the shorter draw.
        max_steps: the largest difficulty drawn; None: the task's own (4). Difficulties come in equal shares.

    Returns:
        Distinct problems, in a fixed order.

    Raises:
        UnknownNameError: no such task or split.
        DPCInterpError: `n` or `max_steps` below 1, or a file that cannot be read so.
    """
    if n is not None and n < 1:
        raise DPCInterpError(f"n is {n}; ask for at least 1 problem")
    if name.endswith(".jsonl"):
        return _read_jsonl(Path(name), n)
    if name not in SYNTHETIC:
        raise UnknownNameError("task", name, [*SYNTHETIC, "a path ending in .jsonl"])
    if split not in SPLITS:
        raise UnknownNameError("split", split, list(SPLITS))
    if n is None:
        raise DPCInterpError(f"{name} is generated and has no end; give n")
    make, hardest = _maker(name)
    top = hardest if max_steps is None else max_steps
    if not 1 <= top <= hardest:
        raise DPCInterpError(f"max_steps is {max_steps}; {name} has problems of 1 to {hardest} steps")
    rng = random.Random(f"{name}/{split}/{seed}/{top}")
    problems: dict[str, Problem] = {}
    misses = 0
    while len(problems) < n:
        n_steps = 1 + len(problems) % top
        problem = make(rng, n_steps)
        if problem.question in problems or split_of(problem.question) != split:
            misses += 1
            if misses == MOST_MISSES:
                raise DPCInterpError(
                    f"{name} has hardly more than {len(problems)} such {split} problems; ask for fewer"
                )
        else:
            misses = 0
            identity = f"{name}-{question_hash(problem.question):016x}"
            problems[problem.question] = replace(problem, id=identity)
    return list(problems.values())


def _read_jsonl(path: Path, n: int | None) -> list[Problem]:
    if not path.is_file():
        raise DPCInterpError(f"{path} is not a file; give the path of a .jsonl file of problems")
    problems: list[Problem] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip() and (n is None or len(problems) < n):
            problems.append(_from_json(line, f"{path}, line {number},", path.stem))
    if not problems:
        raise DPCInterpError(f"{path} is empty; give at least one problem")
    return problems


def _from_json(line: str, place: str, default_task: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{place} is not JSON ({error.msg}); write one JSON object a line") from error
    if not isinstance(row, dict):
        raise DPCInterpError(f"{place} is not a JSON object; every line needs question and answer")
    given = {key: str(value) for key, value in row.items() if value is not None}
    for key in ("question", "answer"):
        if key not in given:
            raise DPCInterpError(f"{place} lacks the column {key!r}; every line needs question and answer")
    task, rationale = given.get("task", default_task), given.get("rationale", "")
    identity = given.get("id", f"{task}-{question_hash(given['question']):016x}")
    steps = sum(bool(step.strip()) for step in rationale[: answer_start(rationale)].splitlines())
    return Problem(task, given["question"], rationale, given["answer"], steps, identity)
