"""The paper's claims put to the test: `python -m dpc_interp.controls --model reasoner --out figures/reasoner`.

fig8 to fig11, tab3 to tab5 and the verdicts. Every task is evaluated with each of its prompts, as for `figures.py`,
whose stages are read where they are there; knock-outs and sweeps, which cost most, are made with the first prompt. What
is finished is kept in `runs/`, so that a stopped run goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import fields
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from dpc_interp import plots
from dpc_interp.analysis.controls import control_peaks
from dpc_interp.evaluation.causal import curve_areas, rank_correlation
from dpc_interp.evaluation.intervals import mean_interval
from dpc_interp.evaluation.regression import trigger_regression
from dpc_interp.evaluation.statistics import sink_summary
from dpc_interp.evaluation.tables import markdown, regression_table, triggers_table, variants_table
from dpc_interp.evaluation.triggers import compare_triggers
from dpc_interp.evaluation.verdict_page import write_page
from dpc_interp.evaluation.verdicts import verdicts
from dpc_interp.experiments import Controlled, Frames, Sizes, controlled
from dpc_interp.output import save_figure
from dpc_interp.parallel import map_processes
from dpc_interp.study import Study, arguments, kept_in, prompts_of

CONTROLS = {
    "sinks": "the control prompts of fig8",
    "causal": "the knock-outs of fig10",
    "sweep": "the sweeps of fig11 and tab5",
    "heads": "the choice of ACT's heads (validation)",
}
RATES = tuple(np.linspace(0, 1, 21).round(2).tolist())
"""Firing rates of the curves in fig9."""


def fig8_sink_control(shown: Study, sinks: pd.DataFrame, summary: pd.DataFrame, folder: Path) -> str:
    """Accumulation behind the trained prompt and its controls: the first prompt by token, all prompts by peak ratio."""
    figure = plt.figure(figsize=(plots.COLUMN_WIDTH, 5.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False).flat
    plots.plot_sink_control(sinks, shallow=shown.shallow, ax=upper.subplots())
    plots.plot_sink_ratios(summary, ax=lower.subplots())
    save_figure(figure, folder / "fig8_sink_control", sinks)
    summary.round(6).to_csv(folder / "fig8_sink_control_ratios.csv", index=False)
    own = summary[summary["condition"] == "untrained"]
    found = "; ".join(
        f"{row.prompt} {row.own_ratio:.2f} [{row.own_low:.2f}, {row.own_high:.2f}]" for row in own.itertuples()
    )
    return (
        "fig8_sink_control: the same transcripts behind other prompts, teacher-forced. Peak ratio of the trained "
        f"prompt minus that of the untrained one: {found}."
    )


def fig9_triggers(compared: pd.DataFrame, by_rate: pd.DataFrame, folder: Path) -> str:
    """All triggers: AUROC against both outcomes, and what corruption gains by firing rate."""
    figure, axes = plt.subplots(2, 1, figsize=(plots.COLUMN_WIDTH, 6.4), layout="constrained")
    plots.plot_triggers(compared, ax=axes[0])
    plots.plot_trigger_gain(by_rate, ax=axes[1])
    save_figure(figure, folder / "fig9_triggers", compared.round(6))
    by_rate.round(6).to_csv(folder / "fig9_triggers_by_rate.csv", index=False)
    rate, n = compared["rate"].iloc[0], compared["n_calibration"].iloc[0]
    return (
        f"fig9_triggers: thresholds from {n} validation rows at the firing rate of the paper's rule there, "
        f"{rate:.1%}; 95% intervals over problems, prompts kept together."
    )


def fig10_causal(effects: Frames, folder: Path) -> str:
    """What knocking out edges does, by layer and by share; the sanity checks of the saliency."""
    figure, axes = plt.subplots(3, 1, figsize=(plots.COLUMN_WIDTH, 7.6), layout="constrained")
    plots.plot_knockout_by_layer(effects["knockouts"], ax=axes[0])
    plots.plot_deletion_curves(effects["curves"], ax=axes[1])
    plots.plot_sanity(effects["sanity"], ax=axes[2])
    save_figure(figure, folder / "fig10_causal", effects["knockouts"])
    for name in ("groups", "curves", "sanity"):
        effects[name].to_parquet(folder / f"fig10_causal_{name}.parquet")
    ranks = rank_correlation(effects["groups"])
    areas = [
        curve_areas(effects["curves"], absolute=absolute)
        .query("kind == 'deletion' and order == 'saliency'")["advantage"]
        .to_numpy(float)
        for absolute in (True, False)
    ]
    told = {
        "Spearman of flow and size of the loss change": ranks["absolute"].to_numpy(float),
        "of flow and signed change": ranks["signed"].to_numpy(float),
        "advantage of deletion by saliency over random in nats, by size": areas[0],
        "signed": areas[1],
    }
    words = "; ".join(f"{name} {_mean_words(values)}" for name, values in told.items())
    return f"fig10_causal: {effects['knockouts']['instance'].nunique()} test instances, teacher-forced. {words}."


def fig11_sensitivity(sweeps: Frames, folder: Path) -> str:
    """Each option by itself on both splits; each virtual token masked in turn."""
    drawn = plots.plot_sensitivity(sweeps["sensitivity"])
    figure = drawn[0].get_figure(root=True)
    assert figure is not None  # it was just drawn on
    save_figure(figure, folder / "fig11_sensitivity", sweeps["sensitivity"].round(6))
    figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.4), layout="constrained")
    plots.plot_single_tokens(sweeps["tokens"], ax=ax)
    save_figure(figure, folder / "fig11_single_tokens", sweeps["tokens"].round(6))
    rows = sweeps["sensitivity"].query("split == 'test'")
    n = f"{rows['n'].iloc[0]} test and {rows['n_validation'].iloc[0]} validation problems"
    return f"fig11_sensitivity: {n}; one option at a time, grey: selected on validation. fig11_single_tokens beside it."


def _mean_words(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return "not measured"
    mean, low, high = (float(bound[0]) for bound in mean_interval(known[:, None]))
    return f"{mean:.2g} [{low:.2g}, {high:.2g}]"


def draw(made: list[Controlled], folder: Path) -> tuple[list[str], Frames]:
    """The figures of one task, its first prompt first; their captions, and the frames of its tables and verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    first = made[0]
    assert first.effects is not None
    assert first.sweeps is not None
    found = pd.concat([control_peaks(one.sinks, layers=first.study.shallow) for one in made], ignore_index=True)
    results = [one.study.results for one in made]
    compared, by_rate = compare_triggers(results), compare_triggers(results, RATES)
    stats = pd.concat([one.study.results.statistics.assign(prompt=one.study.prompt) for one in made], ignore_index=True)
    with plots.style_context():
        captions = [
            fig8_sink_control(first.study, first.sinks, sink_summary(found), folder),
            fig9_triggers(compared, by_rate, folder),
            fig10_causal(first.effects, folder),
            fig11_sensitivity(first.sweeps, folder),
        ]
    frames = {"triggers": compared, "regression": trigger_regression(stats), "variants": first.sweeps["variants"]}
    return captions, {**frames, "peaks": found}


def provenance(made: list[Controlled]) -> dict[str, object]:
    """What was calibrated or selected for one task, on which problems, and on which it is reported."""
    assert made[0].sweeps is not None
    chosen = made[0].sweeps["sensitivity"].query("selected and split == 'test'")
    results = [one.study.results for one in made]
    return {
        "alpha": {one.study.prompt: one.study.results.rule.threshold for one in made},
        "selected": dict(zip(chosen["option"], chosen["value"].astype(str), strict=True)),
        "calibrated_on": sorted({instance for one in results for instance in one.validation["instance"]}),
        "reported_on": sorted({instance for one in results for instance in one.instances["instance"]}),
    }


def main() -> None:
    """Draw fig8 to fig11 and judge every claim, for one model."""
    parser = arguments(main.__doc__)
    for size in fields(Sizes):
        parser.add_argument(
            f"--n-{size.name}", type=int, default=size.default, help=f"problems for {CONTROLS[size.name]}"
        )
    args = parser.parse_args()
    of_controls = Sizes(**{size.name: getattr(args, f"n_{size.name}") for size in fields(Sizes)})
    start = time.perf_counter()
    prompts = prompts_of(args.model, args.tasks, args.seeds)
    tasks = list(prompts)
    kept = kept_in(args.runs, args.model, args.n, args.n_validation)
    sizes = (args.n, args.n_validation, args.batch_size, kept)
    jobs = [
        (args.model, task, name, *sizes, of_controls, not k) for task in tasks for k, name in enumerate(prompts[task])
    ]
    jobs.sort(key=lambda job: not job[-1])  # the long ones first
    made = map_processes(controlled, jobs, "evaluate and control")
    by_task = {task: [one for one in made if one.study.task == task] for task in tasks}

    text = [
        f"# Controls of {args.model}",
        f"Written by `make verdicts`: {args.n} test problems a task (seed 0), {args.n_validation} validation problems "
        "that calibrate and select, every prompt for fig8, fig9, tab3, tab4 and the verdicts, the first one for "
        "fig10, fig11 and tab5; intervals are 95%. What follows for the claims: [VERDICTS.md](../VERDICTS.md).",
    ]
    tables: list[Frames] = []
    for i, task in enumerate(tasks):
        captions, frames = draw(by_task[task], args.out / task if i else args.out)
        tables.append(frames)
        text += [f"## {task}", "\n".join(f"- {caption}" for caption in captions)]
    for name, key, cells, title in (
        ("tab3_triggers", "triggers", triggers_table, "Triggers at one firing rate"),
        ("tab4_regression", "regression", regression_table, "Is the trigger more than length or confidence?"),
        ("tab5_corruptions", "variants", variants_table, "Corruptions compared, first prompt"),
    ):
        frame = pd.concat([frames[key] for frames in tables], ignore_index=True)
        frame.round(6).to_csv(args.out / f"{name}.csv", index=False)
        text += [f"## {name}: {title}", markdown(cells(frame))]
    (args.out / "CONTROLS.md").write_text("\n\n".join(text) + "\n")
    told = {task: provenance(of_task) for task, of_task in by_task.items()}
    (args.out / "provenance.json").write_text(json.dumps(told, indent=1) + "\n")
    peaks = pd.concat([frames["peaks"] for frames in tables], ignore_index=True)
    judged = verdicts([one.study.results for one in chain(*by_task.values())], model=args.model, controls=peaks)
    judged.round(6).to_csv(args.out / "verdicts.csv", index=False)
    page = write_page(args.out.parent)
    print(f"wrote {args.out} and {page} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
