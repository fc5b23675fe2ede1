"""Validation problems for a task that has none: some of its own problems, which are then not reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import ProblemSample, Tasks, as_task_list
from dpc_interp.execution.digest import digest
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import has_validation, load_problems

HELD_OUT = 0.3
"""Share of the problems of a task without validation problems that calibrates instead of being reported."""


def hold_out_validation(
    problems: Tasks, sample: ProblemSample
) -> tuple[list[str | Path | list[Problem]], ProblemSample]:
    """Take validation problems from each task that has none.

    Args:
        problems: names, lists of problems (each of one task) or rows of `load_problems`, one or several.
        sample: which problems are drawn.

    Returns:
        The tasks without these problems, and the sample with them. They are `HELD_OUT` of the problems, at most
        `sample.n_validation`, those whose questions have the smallest hashes, and any others of the same questions. Of
        a named task at most `sample.n` of the others are left; a list is reported whole.

    Raises:
        DPCInterpError: all problems of a task ask the same question.
    """
    tasks: list[str | Path | list[Problem]] = []
    validation = dict(sample.validation)
    for entry in as_task_list(problems):
        is_named = isinstance(entry, str | Path) and not has_validation(entry)
        # all of them: what is reported is cut to `n` after these problems are taken
        rows = load_problems(entry, "test", None) if is_named else entry
        if isinstance(rows, str | Path) or not rows:
            tasks.append(rows)
            continue
        name = rows[0].task
        if name not in validation and (is_named or not has_validation(name)):
            ordered = sorted(rows, key=lambda problem: digest(problem.question.encode()))
            held = {problem.question for problem in ordered[: round(HELD_OUT * len(rows))][: sample.n_validation]}
            validation[name] = [problem for problem in ordered if problem.question in held]
            rows = [problem for problem in rows if problem.question not in held]
            if not rows:
                raise DPCInterpError(f"all problems of {name!r} ask the same question; give others for validation=")
        tasks.append(rows[: sample.n] if is_named else rows)
    return tasks, replace(sample, validation=validation)
