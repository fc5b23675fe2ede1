"""Any grid of models, tasks, prompts, methods and options in one call: one tidy row a cell, split and method.

The trigger is calibrated on validation problems in every cell. Rows of the split `validation` are therefore optimistic:
they serve to select, never to report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.compare import Contexts
from dpc_interp.evaluation.grid import Cell, Draw, How, Models, Prompts, Tasks, make_options, measure, prepare
from dpc_interp.evaluation.stages import SHARD_SIZE
from dpc_interp.tasks.problems import Problem


def ablate(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("always", "dpc"),
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    n: int = 200,
    n_validation: int = 200,
    problem_seed: int = 0,
    validation: Mapping[str, Sequence[Problem]] | None = None,
    splits: Sequence[str] = ("test",),
    contexts: Contexts | None = None,
    out: str | Path | None = None,
    batch_size: int = 128,
    shard_size: int = SHARD_SIZE,
    draft_rationales: bool = True,
    engine: str = "local",
    n_workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Evaluate every cell of models x tasks x prompts x `grid`.

    Args:
        models, prompts: names or loaded ones, one or several.
        tasks: names, or lists of problems (each of one task), one or several.
        methods: names from `METHODS`; all are compared with `pt`.
        grid: option -> its values; the options are those of `evaluate` (`Options`).
        n, n_validation, problem_seed: how many problems are drawn of each split of a named task, and their seed.
        validation: by task, the problems that calibrate; default: the task's own validation split.
        splits: `test`, `validation` or both.
        contexts: further methods, see `evaluate`.
        out: a folder that keeps finished shards and cells; a grid stopped there goes on, and another grid shares them.
        batch_size, shard_size, draft_rationales, engine, n_workers: see `evaluate`; the rows do not depend on them.
        options: other values than the defaults, the same in all cells.

    Returns:
        One row a cell, split and method: model, task, prompt, split, n_validation, every option (`deep` and `shallow`
        as `4-5`; `beta` NaN: that of each instance), threshold (NaN where no method needs a trigger), and the columns
        of `summarise`.

    Raises:
        DPCInterpError: an unknown option, value, method, split or name, a prompt that does not fit a model, or a task
            without validation problems; before anything is computed.
    """
    grid = {} if grid is None else grid
    both = sorted(grid.keys() & options.keys())
    if both:
        raise DPCInterpError(f"{both[0]} is in the grid and given for all cells; give it once")
    empty = [name for name, values in grid.items() if isinstance(values, str) or not len(values)]
    if empty:
        raise DPCInterpError(f"the grid has no list of values for {empty[0]}; give at least one")
    cells = [
        Cell(make_options(options | dict(zip(grid, values, strict=True))), methods, contexts or {})
        for values in product(*grid.values())
    ]
    how = How(out, batch_size, draft_rationales, progress, shard_size, engine, n_workers)
    settings = prepare(models, tasks, prompts, cells, splits, Draw(n, n_validation, problem_seed, validation or {}))
    return measure(settings, lambda *_: cells, splits, how)
