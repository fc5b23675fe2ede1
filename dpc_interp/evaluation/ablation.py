"""`ablate`: any grid of models, tasks, prompts, methods and options, one tidy row per cell, split and method.

The trigger is calibrated on validation problems in every cell. Rows of the split `validation` are therefore optimistic:
use them to select, never to report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import Cell, Models, ProblemSample, Prompts, Tasks, measure, prepare
from dpc_interp.evaluation.methods import Contexts
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.host.torch_state import torch_defaults


@torch_defaults()
def ablate(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("always", "dpc"),
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    splits: Sequence[str] = ("test",),
    contexts: Contexts | None = None,
    sample: ProblemSample | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    **fields: Any,
) -> pd.DataFrame:
    """Evaluate every cell of models x tasks x prompts x `grid`.

    Args:
        models: names or loaded models, one or several.
        tasks: names, lists of problems (each of one task) or rows of `load_problems`, one or several.
        prompts: names or loaded prompts, one or several.
        methods: names from `METHODS`; all are compared with `pt`.
        grid: field of `Options` -> its values.
        splits: `test`, `validation` or both.
        contexts: further methods, see `evaluate`.
        sample: which problems are drawn; None: the defaults of `ProblemSample`.
        options: values in all cells; None: the defaults of `Options`.
        run: how the grid is run; its rows do not depend on it. None: the defaults of `RunConfig`.
        fields: single fields of `ProblemSample`, `Options` and `RunConfig` by their own names.

    Returns:
        One row per cell, split and method: model, task, prompt, split, n_validation, every option (`deep` and `shallow`
        as `4-5`; `beta` NaN: that of each instance), threshold (NaN where no method needs a trigger), the columns of
        `summarise`, and reason: why a method has NaN in them, because all validation answers are alike, or empty.

    Raises:
        DPCInterpError: an unknown option, value, method, split or name, a prompt that does not fit a model, or a task
            without validation problems; before anything is computed.

    Example:
        >>> import dpc_interp as dpc
        >>> grid = {"gamma": [0, 10]}
        >>> rows = dpc.ablate("reasoner", "story", "reasoner/story", ["always"], grid, n=4, progress=False)
        >>> rows["gamma"].tolist()
        [0, 10]
    """
    grid = {} if grid is None else grid
    both = sorted(grid.keys() & fields.keys())
    if both:
        raise DPCInterpError(f"{both[0]} is in the grid and given for all cells; give it once")
    empty = [name for name, values in grid.items() if isinstance(values, str) or not len(values)]
    if empty:
        raise DPCInterpError(f"the grid has no list of values for {empty[0]}; give at least one")
    sample, options, run = read_keywords(fields, sample or ProblemSample(), options or Options(), run or RunConfig())
    cells = [
        Cell(read_keywords(dict(zip(grid, values, strict=True)), options)[0], methods, contexts or {})
        for values in product(*grid.values())
    ]
    settings = prepare(models, tasks, prompts, cells, splits, sample)
    return measure(settings, lambda *_: cells, splits, run)
