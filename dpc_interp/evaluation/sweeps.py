"""Sweeps over a grid: every virtual token in turn, the kinds of corruption, and each option by itself.

`option_sensitivity` changes one option at a time. Each value is measured on both splits; the value to use is selected
on the rows of the validation split alone, and the rows of the test split report it (docs/method.md, section 7.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import pandas as pd

from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.layers import deep_layers, layer_range, shallow_layers
from dpc_interp.analysis.options import BetaStatistic, HeadReduction, Options, Target
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.compare import analyse_pt
from dpc_interp.evaluation.grid import Cell, Models, ProblemSample, Prompts, Setting, Tasks, measure, prepare
from dpc_interp.evaluation.methods import Contexts
from dpc_interp.evaluation.stages import Stages
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.host.torch_state import torch_defaults

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "accumulation token": {},
    "top 2": {"top_k": 2},
    "top 3": {"top_k": 3},
    "random token": {"token": "random"},
    **{f"mask {mask:g}": {"mask": mask} for mask in (0.25, 0.5, 0.75)},
    **{f"Gamma {gamma}": {"gamma": gamma} for gamma in (0, 2, 5, 20)},
    "mean vector": {"replace": "mean"},
    "noise": {"replace": "noise"},
    **{f"knock-out, {layers}": {"knock_out": layers} for layers in ("shallow", "deep", "everywhere")},
}
"""Name -> how it differs from the defaults: the accumulation token masked to 0, with Gamma 10."""
SWEPT_VALUES: Mapping[str, Sequence[Any]] = {
    "alpha_offset": (-0.2, -0.1, 0.0, 0.1, 0.2),
    "beta": (None, 0.5, 1.0, 1.5, 2.0),
    "beta_statistic": get_args(BetaStatistic),
    "gamma": (0, 2, 5, 10, 20),
    "mask": (0.0, 0.25, 0.5, 0.75),
    "shallow": ("first", "third", "half", "all"),
    "deep": ("last", "third", "half", "all"),
    "head_reduction": get_args(HeadReduction),
    "target": get_args(Target),
}
"""Option -> its values. `beta` in units of the mean deep flow into the tokens of validation rationales (None: that of
the early half of each instance); `shallow` and `deep` as the share of the layers from that end.
"""


@torch_defaults()
def single_tokens(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    *,
    sample: ProblemSample | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    **fields: Any,
) -> pd.DataFrame:
    """Mask each virtual token in turn, in every test problem.

    Args:
        models, tasks, prompts, sample, run: see `ablate`.
        options: see `ablate`; None: the defaults with `gamma=0`, so that nothing but the token is changed.
        fields: single fields, see `ablate`.

    Returns:
        The rows of `ablate` (method `always`), after virtual_token, accumulation (its share of the prompt's shallow
        accumulation, mean over problems) and peak_share (share of problems whose accumulation token it is).

    Raises:
        DPCInterpError: as `ablate`.

    Example:
        >>> import dpc_interp as dpc
        >>> rows = dpc.single_tokens("reasoner", "story", "reasoner/story", n=2, progress=False)
        >>> rows["virtual_token"].tolist() == list(range(20))
        True
    """
    sample, options, run = read_keywords(
        fields, sample or ProblemSample(), options or Options(gamma=0), run or RunConfig()
    )
    settings = prepare(models, tasks, prompts, [Cell(options, ["always"])], ["test"], sample)

    def cells(setting: Setting, stages: Stages) -> list[Cell]:
        shares = _accumulation_shares(setting, stages, options)
        columns = {str(name): shares[name].tolist() for name in shares}
        return [
            Cell(
                replace(options, token=token),
                ["always"],
                labels={"virtual_token": token, **{name: column[token] for name, column in columns.items()}},
            )
            for token in range(len(shares))
        ]

    return measure(settings, cells, ["test"], run)


@torch_defaults()
def corruption_variants(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("always", "dpc"),
    *,
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
    contexts: Contexts | None = None,
    sample: ProblemSample | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    **fields: Any,
) -> pd.DataFrame:
    """Compare kinds of corruption under the same trigger.

    Args:
        models, tasks, prompts, sample, options, run, fields: see `ablate`.
        methods: where each fires: `always`, `dpc` (by the rule), `oracle`.
        variants: name -> options that differ from `options`.
        contexts: further variants, such as a knock-out or ACT; see `evaluate`.

    Returns:
        The rows of `ablate`, after the column `variant`.

    Raises:
        DPCInterpError: as `ablate`.
    """
    sample, options, run = read_keywords(fields, sample or ProblemSample(), options or Options(), run or RunConfig())
    cells = [
        Cell(read_keywords(changes, options)[0], methods, labels={"variant": name})
        for name, changes in variants.items()
    ]
    cells += [
        Cell(options, (), {name: context}, labels={"variant": name}) for name, context in (contexts or {}).items()
    ]
    settings = prepare(models, tasks, prompts, cells, ["test"], sample)
    return measure(settings, lambda *_: cells, ["test"], run)


@torch_defaults()
def option_sensitivity(
    models: Models,
    tasks: Tasks,
    prompts: Prompts,
    methods: Sequence[str] = ("dpc",),
    *,
    values: Mapping[str, Sequence[Any]] = SWEPT_VALUES,
    sample: ProblemSample | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    **fields: Any,
) -> pd.DataFrame:
    """Change one option at a time, all others as in `options`, on the validation and on the test split.

    Args:
        models, tasks, prompts, methods, sample, options, run, fields: see `ablate`.
        values: option -> its values, in the units of `SWEPT_VALUES`; the value in `options` is measured too.

    Returns:
        The rows of `ablate`, after: option, value (a string), default (whether it is the value in `options`) and
        selected (see `select_on_validation`).

    Raises:
        DPCInterpError: as `ablate`.
    """
    sample, options, run = read_keywords(fields, sample or ProblemSample(), options or Options(), run or RunConfig())
    for option in values:
        read_keywords({option: getattr(options, option, None)}, options)  # raises for an unknown name
    known_cells = [Cell(options, methods)] + [
        Cell(replace(options, **{option: value}), methods)
        for option, swept in values.items()
        if option not in ("beta", "shallow", "deep")  # their values depend on the setting
        for value in swept
    ]
    splits = ("validation", "test")
    settings = prepare(models, tasks, prompts, known_cells, splits, sample)

    def cells(setting: Setting, stages: Stages) -> list[Cell]:
        beta_unit = _beta_unit(setting, stages, options) if "beta" in values else 1.0
        return [
            cell
            for option, swept in values.items()
            for cell in _option_cells(options, methods, option, swept, setting.model.cfg.n_layers, beta_unit)
        ]

    rows = measure(settings, cells, splits, run)
    rows.insert(3, "selected", select_on_validation(rows))
    return rows


def select_on_validation(rows: pd.DataFrame) -> pd.Series:
    """Which rows of an `option_sensitivity` frame have the value with the most correct answers on validation.

    Per model, task, prompt, method and option; the default is kept on a tie, else the first value. Rows of the test
    split are marked by their value; their outcomes are not read. The target `gold` needs the written solution, which no
    trigger has at test time, so it is measured and never selected.
    """
    keys = ["model", "task", "prompt", "method", "option"]
    needs_solution = (rows["option"] == "target") & (rows["value"] == "gold")
    validation = rows[(rows["split"] == "validation") & ~needs_solution]
    order = validation.sort_values(["accuracy", "default"], ascending=False, kind="stable")
    best = order.drop_duplicates(keys).set_index(keys)["value"]
    index = pd.MultiIndex.from_frame(rows[keys])
    return pd.Series(best.reindex(index).to_numpy() == rows["value"].to_numpy(), index=rows.index)


def _option_cells(
    base: Options, methods: Sequence[str], option: str, swept: Sequence[Any], n_layers: int, beta_unit: float
) -> list[Cell]:
    """One cell per value of one option; the value in `base` comes first where it is not among them."""
    by_label = {_value_label(option, value): _resolve(option, value, n_layers, beta_unit) for value in swept}
    base_value = getattr(base, option)
    default = next((label for label, value in by_label.items() if value == base_value), None)
    if default is None:
        default = _value_label(option, base_value)
        by_label = {default: base_value, **by_label}
    return [
        Cell(
            replace(base, **{option: value}),
            methods,
            labels={"option": option, "value": label, "default": label == default},
        )
        for label, value in by_label.items()
    ]


def _accumulation_shares(setting: Setting, stages: Stages, options: Options) -> pd.DataFrame:
    """By virtual token: accumulation and peak_share over the test problems."""
    _, analysis = analyse_pt(stages, setting.problems["test"], setting.settled(options))
    layers = options.shallow or shallow_layers(analysis.n_layers)
    shallow = analysis.accumulation[analysis.accumulation["layer"].isin(layers)]
    table = shallow.pivot_table(index="instance", columns="virtual_token", values="value")
    peaks = accumulation_peaks(analysis.accumulation, layers=layers, exclude_sink=options.exclude_sink)["peak_token"]
    return pd.DataFrame(
        {
            "accumulation": table.div(table.sum(axis=1), axis=0).mean(),
            "peak_share": peaks.value_counts(normalize=True).reindex(table.columns, fill_value=0.0),
        }
    )


def _beta_unit(setting: Setting, stages: Stages, options: Options) -> float:
    """Mean flow from the prompt into the rationale tokens of validation, over the deep layers."""
    _, analysis = analyse_pt(stages, setting.problems["validation"], setting.settled(options), "validation-")
    deep = options.deep or deep_layers(analysis.n_layers)
    return float(analysis.tokens.loc[analysis.tokens["layer"].isin(deep), "value"].mean())


def _resolve(option: str, value: Any, n_layers: int, beta_unit: float) -> Any:
    """A value of `SWEPT_VALUES` as one of `Options`."""
    if option == "beta" and value is not None:
        return value * beta_unit
    if option in ("shallow", "deep") and isinstance(value, str):
        sizes = {"first": 1, "last": 1, "third": max(1, n_layers // 3), "half": max(1, n_layers // 2), "all": n_layers}
        if value not in sizes:
            raise DPCInterpError(f"unknown range of layers {value!r}; known: {', '.join(sizes)}, or the layers")
        if value == "third":
            return None
        return tuple(range(sizes[value])) if option == "shallow" else tuple(range(n_layers - sizes[value], n_layers))
    return value


def _value_label(option: str, value: Any) -> str:
    if value is None:
        return "own" if option == "beta" else "third"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return layer_range(value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)
