"""Sweeps, recipes of the grid: every virtual token in turn, the kinds of corruption, and each option by itself.

`sensitivity` changes one option at a time. Each value is measured on both splits; the one to use is selected on the
rows of the validation split alone, and the rows of the test split report it (METHOD 7.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.analysis.accumulation import deep_layers, peaks, shallow_layers
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.compare import Contexts
from dpc_interp.evaluation.grid import (
    OPTIONS,
    Cell,
    Draw,
    How,
    Models,
    Prompts,
    Setting,
    Tasks,
    layer_label,
    make_options,
    measure,
    prepare,
)
from dpc_interp.evaluation.options import Options
from dpc_interp.evaluation.stages import Stages
from dpc_interp.tasks.problems import Problem

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "accumulation token": {},
    "top 2": {"top_k": 2},
    "top 3": {"top_k": 3},
    "random token": {"token": "random"},
    **{f"mask {mask:g}": {"mask": mask} for mask in (0.25, 0.5, 0.75)},
    **{f"Gamma {gamma}": {"gamma": gamma} for gamma in (0, 2, 5, 20)},
    "mean vector": {"replace": "mean"},
    "noise": {"replace": "noise"},
    **{f"knock-out, {where}": {"knock_out": where} for where in ("shallow", "deep", "everywhere")},
}
"""Name -> how it differs from the accumulation token masked to 0 with Gamma 10."""
SWEPT: Mapping[str, Sequence[Any]] = {
    "alpha_offset": (-0.2, -0.1, 0.0, 0.1, 0.2),
    "beta": (None, 0.5, 1.0, 1.5, 2.0),
    "gamma": (0, 2, 5, 10, 20),
    "mask": (0.0, 0.25, 0.5, 0.75),
    "shallow": ("first", "third", "half", "all"),
    "deep": ("last", "third", "half", "all"),
    "head_reduction": ("abs_of_sum", "sum_of_abs", "mean_of_abs"),
    "target": ("generated", "gold"),
}
"""Option -> its values. `beta` in units of the mean deep flow into the tokens of validation rationales (None: that of
the early half of each instance); `shallow` and `deep` as the share of the layers from that end.
"""


def single_tokens(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    *,
    n: int = 200,
    problem_seed: int = 0,
    out: str | Path | None = None,
    batch_size: int = 128,
    draft_rationales: bool = True,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Mask each virtual token in turn, in every test problem: the ablation row of a prompt.

    Args:
        options: of `evaluate`; `gamma` is 0 if not given, so that nothing but the token is changed.
        models, tasks, prompts, n, problem_seed, out, batch_size, draft_rationales, progress: see `ablate`.

    Returns:
        The rows of `ablate` (method `always`), first virtual_token, accumulation (its share of the prompt's shallow
        accumulation, mean over problems) and peak_share (share of problems whose accumulation token it is).

    Raises:
        DPCInterpError: as `ablate`.
    """
    base = make_options({"gamma": 0, **options})
    settings = prepare(models, tasks, prompts, [Cell(base, ["always"])], ["test"], Draw(n, 0, problem_seed))
    how = How(out, batch_size, draft_rationales, progress)

    def cells(setting: Setting, stages: Stages) -> list[Cell]:
        shares = _accumulation_shares(setting, stages, base, draft_rationales)
        named = [(str(name), shares[name].tolist()) for name in shares]
        return [
            Cell(
                _changed(base, token=token),
                ["always"],
                labels={"virtual_token": token, **{name: column[token] for name, column in named}},
            )
            for token in range(len(shares))
        ]

    return measure(settings, cells, ["test"], how)


def corruption_variants(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("always", "dpc"),
    *,
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
    contexts: Contexts | None = None,
    n: int = 200,
    n_validation: int = 200,
    problem_seed: int = 0,
    validation: Mapping[str, Sequence[Problem]] | None = None,
    out: str | Path | None = None,
    batch_size: int = 128,
    draft_rationales: bool = True,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Compare kinds of corruption by the same trigger.

    Args:
        methods: where each fires: `always`, `dpc` (by the rule), `oracle`.
        variants: name -> options that differ from `options`.
        contexts: further variants, such as a knock-out or ACT; see `evaluate`.

    Returns:
        The rows of `ablate`, first the column `variant`.
    """
    cells = [
        Cell(make_options({**options, **changes}), methods, labels={"variant": name})
        for name, changes in variants.items()
    ]
    cells += [
        Cell(make_options(options), (), {name: context}, labels={"variant": name})
        for name, context in (contexts or {}).items()
    ]
    draw = Draw(n, n_validation, problem_seed, validation or {})
    settings = prepare(models, tasks, prompts, cells, ["test"], draw)
    return measure(settings, lambda *_: cells, ["test"], How(out, batch_size, draft_rationales, progress))


def sensitivity(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("dpc",),
    *,
    values: Mapping[str, Sequence[Any]] = SWEPT,
    n: int = 200,
    n_validation: int = 200,
    problem_seed: int = 0,
    validation: Mapping[str, Sequence[Problem]] | None = None,
    out: str | Path | None = None,
    batch_size: int = 128,
    draft_rationales: bool = True,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Change one option at a time, all else as in `options`, on the validation and on the test split.

    Args:
        values: option -> its values, in the units of `SWEPT`; the value in `options` is measured too.

    Returns:
        The rows of `ablate`, first: option, value (a string), default (whether it is the value in `options`) and
        selected (see `select`).
    """
    base = make_options(options)
    for option in values:
        if option not in OPTIONS:
            make_options({option: None})  # says which are known
    plain = [Cell(base, methods)] + [
        Cell(_changed(base, **{option: value}), methods)
        for option, of_option in values.items()
        if option not in ("beta", "shallow", "deep")
        for value in of_option
    ]
    splits = ("validation", "test")
    draw = Draw(n, n_validation, problem_seed, validation or {})
    settings = prepare(models, tasks, prompts, plain, splits, draw)

    def cells(setting: Setting, stages: Stages) -> list[Cell]:
        unit = _beta_unit(setting, stages, base, draft_rationales) if "beta" in values else 1.0
        made = []
        for option, of_option in values.items():
            chosen = {
                _value_label(option, value): _resolved(option, value, setting.model.cfg.n_layers, unit)
                for value in of_option
            }
            own = getattr(base, option)
            at = [name for name, value in chosen.items() if value == own]
            if not at:
                at = [_value_label(option, own)]
                chosen = {at[0]: own, **chosen}
            for name, value in chosen.items():
                labels = {"option": option, "value": name, "default": name == at[0]}
                made.append(Cell(_changed(base, **{option: value}), methods, labels=labels))
        return made

    rows = measure(settings, cells, splits, How(out, batch_size, draft_rationales, progress))
    rows.insert(3, "selected", select(rows))
    return rows


def select(rows: pd.DataFrame) -> pd.Series:
    """Which rows of a `sensitivity` frame have the value with the most right answers on the validation split.

    Per model, task, prompt, method and option; the default is kept on a tie, else the first value. Rows of the test
    split are marked by their value; their outcomes are not read.
    """
    keys = ["model", "task", "prompt", "method", "option"]
    validation = rows[rows["split"] == "validation"]
    order = validation.sort_values(["accuracy", "default"], ascending=False, kind="stable")
    best = order.drop_duplicates(keys).set_index(keys)["value"]
    named = pd.MultiIndex.from_frame(rows[keys])
    return pd.Series(best.reindex(named).to_numpy() == rows["value"].to_numpy(), index=rows.index)


def _changed(base: Options, **changes: Any) -> Options:
    return make_options({name: getattr(base, name) for name in OPTIONS} | changes)


def _accumulation_shares(setting: Setting, stages: Stages, options: Options, draft_rationales: bool) -> pd.DataFrame:
    """By virtual token: accumulation and peak_share over the test problems."""
    pt = stages.runs("pt", setting.problems["test"], setting.prompt, options.max_new_tokens, draft_rationales)
    found = stages.analysis("analysis", pt, options.target, options.head_reduction)
    layers = options.shallow or shallow_layers(found.n_layers)
    chosen = found.accumulation[found.accumulation["layer"].isin(layers)]
    table = chosen.pivot_table(index="instance", columns="virtual_token", values="value")
    peak = peaks(found.accumulation, layers=layers, exclude_sink=options.exclude_sink)["peak_token"]
    return pd.DataFrame(
        {
            "accumulation": table.div(table.sum(axis=1), axis=0).mean(),
            "peak_share": peak.value_counts(normalize=True).reindex(table.columns, fill_value=0.0),
        }
    )


def _beta_unit(setting: Setting, stages: Stages, options: Options, draft_rationales: bool) -> float:
    """Mean flow from the prompt into the rationale tokens of validation, over the deep layers."""
    problems = setting.problems["validation"]
    pt = stages.runs("validation-pt", problems, setting.prompt, options.max_new_tokens, draft_rationales)
    found = stages.analysis("validation-analysis", pt, options.target, options.head_reduction)
    deep = options.deep or deep_layers(found.n_layers)
    return float(found.tokens.loc[found.tokens["layer"].isin(deep), "value"].mean())


def _resolved(option: str, value: Any, n_layers: int, unit: float) -> Any:
    """A value of `SWEPT` as one of `Options`."""
    if option == "beta" and value is not None:
        return value * unit
    if option in ("shallow", "deep") and isinstance(value, str):
        shares = {"first": 1, "last": 1, "third": max(1, n_layers // 3), "half": max(1, n_layers // 2), "all": n_layers}
        if value not in shares:
            raise DPCInterpError(f"unknown range of layers {value!r}; known: {', '.join(shares)}, or the layers")
        if value == "third":
            return None
        return tuple(range(shares[value])) if option == "shallow" else tuple(range(n_layers - shares[value], n_layers))
    return value


def _value_label(option: str, value: Any) -> str:
    if value is None:
        return "own" if option == "beta" else "third"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return layer_label(value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)
