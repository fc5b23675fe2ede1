"""`gsm_symbolic`: GSM8K questions with other names and numbers, from the templates of the package `reasoning-gym`.

The package has 100 templates (Mirzadeh et al. 2024, GSM-Symbolic) and marks 85 of them as correct; only these are used.
`gsm_symbolic/12,38` draws from templates 12 and 38 only. The id of a problem contains the number of its template:
`gsm_symbolic-12-<hash of the question>`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dpc_interp.errors import DPCInterpError
from dpc_interp.tasks.problem import Problem, draw_distinct, question_hash
from dpc_interp.tasks.rows import split_steps

NAME = "gsm_symbolic"
DIFFICULTY = 1.0
"""The only difficulty for which the templates of reasoning-gym are defined."""
Generator = Callable[[random.Random, float], dict[str, Any]]


def load(name: str, split: str, n: int, seed: int, max_steps: int | None) -> list[Problem]:
    """Draw distinct problems from the templates, each of them equally often on average.

    Args:
        name: `gsm_symbolic`, or `gsm_symbolic/12,38` for two of its templates.
        split: `train`, `validation` or `test`.
        n: number of problems.
        seed: seed of the random draw.
        max_steps: the largest number of rationale steps; None: no limit.

    Returns:
        `n` problems with different questions. A longer draw begins with the shorter one.

    Raises:
        DPCInterpError: a template that does not exist, fewer than `n` such problems, or `reasoning-gym` is not
            installed.
    """
    generators = _load_generators()
    templates = _selected_templates(name, generators)
    rng = random.Random(f"{name}/{split}/{seed}/{max_steps}")

    def draw(_: int) -> Problem | None:
        template = rng.choice(templates)
        # A new generator for each problem, because templates use different numbers of random values.
        problem = _make_problem(name, template, generators[template], random.Random(rng.getrandbits(64)))
        return problem if max_steps is None or problem.n_steps <= max_steps else None

    return draw_distinct(draw, name, split, n)


def template_of(problem: Problem) -> int:
    """Read the number of the template that a problem was drawn from.

    Args:
        problem: a problem of this task.

    Returns:
        The number of the template.

    Raises:
        DPCInterpError: the problem is not of this task.
    """
    match = re.fullmatch(rf"{NAME}-(\d+)-[0-9a-f]+", problem.id)
    if match is None:
        raise DPCInterpError(f"{problem.id!r} is not an id of {NAME}; give a problem from load_problems({NAME!r})")
    return int(match[1])


def _make_problem(name: str, template: int, generator: Generator, rng: random.Random) -> Problem:
    example = generator(rng, DIFFICULTY)
    answer = str(example["answer"])
    steps = split_steps(example["metadata"]["answer_cot"].partition("####")[0])
    rationale = "\n".join([*steps, f"#### {answer}"])
    problem = Problem(name, example["question"], rationale, answer, len(steps))
    return replace(problem, id=f"{NAME}-{template}-{question_hash(problem.question):016x}")


def _selected_templates(name: str, generators: dict[int, Generator]) -> list[int]:
    """The templates that `name` selects, in order."""
    _, slash, selection = name.partition("/")
    if not slash:
        return sorted(generators)
    templates = {int(number) if number.isdecimal() else -1 for number in selection.split(",")}
    if not templates <= generators.keys():
        raise DPCInterpError(
            f"{name!r} names a template that does not exist; write {NAME}/12,38 with numbers from {min(generators)} to "
            f"{max(generators)}, except those that reasoning-gym marks as broken"
        )
    return sorted(templates)


def _load_generators() -> dict[int, Generator]:
    """Template -> function that draws an example of it."""
    try:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic
    except ImportError as error:
        raise DPCInterpError(f"{NAME} needs the package reasoning-gym; pip install reasoning-gym") from error
    # Only the generators of the dataset are used; they do not depend on its seed and size.
    dataset = gsm_symbolic.GSMSymbolicDataset(gsm_symbolic.GSMSymbolicDatasetConfig(seed=0, size=1))
    return {template: dataset.generators[template] for template in gsm_symbolic.tasks_ok}
