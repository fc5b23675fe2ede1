"""`gsm_symbolic`: GSM8K questions with other names and numbers, drawn from the templates of `reasoning-gym`.

The package has 100 templates (Mirzadeh et al. 2024), of which it trusts 85. `gsm_symbolic/12,38` draws from
templates 12 and 38 alone. A template is known by the number of its generator, which stands in each problem's id:
`gsm_symbolic-12-<hash of the question>`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dpc_interp.errors import DPCInterpError
from dpc_interp.tasks.benchmarks import steps_of
from dpc_interp.tasks.problems import Problem, collect, question_hash

NAME = "gsm_symbolic"
Generator = Callable[[random.Random, float], dict[str, Any]]


def load(name: str, split: str, n: int, seed: int, max_steps: int | None) -> list[Problem]:
    """`n` distinct problems of the templates that `name` asks for, templates drawn with equal chances."""
    generators = _generators()
    chosen = _templates(name, generators)
    rng = random.Random(f"{name}/{split}/{seed}/{max_steps}")

    def draw(_: int) -> Problem | None:
        template = rng.choice(chosen)
        problem = _make(name, template, generators[template], random.Random(rng.getrandbits(64)))
        return problem if max_steps is None or problem.n_steps <= max_steps else None

    return collect(draw, name, split, n)


def template_of(problem: Problem) -> int:
    """The template that a problem of this task comes from."""
    match = re.fullmatch(rf"{NAME}-(\d+)-[0-9a-f]+", problem.id)
    if match is None:
        raise DPCInterpError(f"{problem.id!r} is no id of {NAME}; give a problem that load_problems made")
    return int(match[1])


def _make(name: str, template: int, generator: Generator, rng: random.Random) -> Problem:
    example = generator(rng, 1.0)  # the one difficulty there is
    answer = str(example["answer"])
    steps = steps_of(example["metadata"]["answer_cot"].partition("####")[0])
    rationale = "\n".join([*steps, f"#### {answer}"])
    problem = Problem(name, example["question"], rationale, answer, len(steps))
    return replace(problem, id=f"{NAME}-{template}-{question_hash(problem.question):016x}")


def _templates(name: str, generators: dict[int, Generator]) -> list[int]:
    wanted = name.partition("/")[2] if "/" in name else None
    if wanted is None:
        return sorted(generators)
    listed = [int(part) if part.isdecimal() else -1 for part in wanted.split(",")]
    if not set(listed) <= generators.keys():
        raise DPCInterpError(
            f"{name!r} names a template that is not there; write {NAME}/12,38 with numbers from {min(generators)} to "
            f"{max(generators)}, without those that reasoning-gym holds for broken"
        )
    return sorted(set(listed))


def _generators() -> dict[int, Generator]:
    try:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic
    except ImportError as error:
        raise DPCInterpError(f"{NAME} needs the package reasoning-gym; pip install reasoning-gym") from error
    dataset = gsm_symbolic.GSMSymbolicDataset(gsm_symbolic.GSMSymbolicDatasetConfig(seed=0, size=1))
    return {number: dataset.generators[number] for number in gsm_symbolic.tasks_ok}
