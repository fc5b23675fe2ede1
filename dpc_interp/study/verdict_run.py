"""Test the paper's claims: `python -m dpc_interp.study.verdict_run --model reasoner --out figures/reasoner`.

Writes fig8 to fig11, tab3 to tab6, the regime and the verdicts. Every task is evaluated with each of its prompts;
stages that `figures.py` has stored are read, not computed again. Knock-outs and sweeps, which take longest, use the
first prompt. Finished work is stored in `runs/`, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dpc_interp import plots
from dpc_interp.analysis.controls import control_peaks, sink_summary
from dpc_interp.claims.mixed_models import mixed_models, mixed_table
from dpc_interp.claims.regime import regime
from dpc_interp.claims.trigger_tables import regression_table, triggers_table
from dpc_interp.claims.triggers import compare_triggers
from dpc_interp.claims.verdict_page import write_page
from dpc_interp.claims.verdicts import verdicts
from dpc_interp.evaluation.tables import markdown, variants_table
from dpc_interp.execution.engine import Frames
from dpc_interp.host.processes import map_processes
from dpc_interp.stats.regression import trigger_regression
from dpc_interp.study.control_figures import (
    RATES,
    fig8_sink_control,
    fig9_triggers,
    fig10_causal,
    fig11_sensitivity,
)
from dpc_interp.study.control_runs import ControlResults, RunControls, Sizes
from dpc_interp.study.output import save_figure, save_table
from dpc_interp.study.study import add_shared_answers, build_parser, prompts_of, read_settings

SIZE_HELP = {
    "sinks": "test problems under the control prompts of fig8",
    "causal": "test problems in the knock-outs of fig10",
    "sweep": "test problems in the sweeps of fig11 and tab5",
    "heads": "validation problems that choose the heads of ACT",
}


def draw_task(controls: list[ControlResults], folder: Path) -> tuple[list[str], Frames]:
    """Draw fig8 to fig11 of one task.

    Args:
        controls: controls of each prompt of the task; the first one has effects and sweeps.
        folder: folder of the figures; it is created.

    Returns:
        A caption for each figure; and the frames triggers, regression and variants, of which the tables are made, and
        peaks, which the verdicts need.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = controls[0]
    assert first.effects is not None
    assert first.sweeps is not None
    peaks = pd.concat(
        [control_peaks(control.sinks, layers=first.study.shallow) for control in controls], ignore_index=True
    )
    results = [control.study.results for control in controls]
    compared, by_rate = compare_triggers(results), compare_triggers(results, RATES)
    stats = pd.concat(
        [control.study.results.statistics.assign(prompt=control.study.prompt) for control in controls],
        ignore_index=True,
    )
    with plots.style_context():
        captions = [
            fig8_sink_control(first.study, first.sinks, sink_summary(peaks), folder),
            fig9_triggers(compared, by_rate, folder),
            fig10_causal(first.effects, folder),
            fig11_sensitivity(first.sweeps, folder),
        ]
    return captions, {
        "triggers": compared,
        "regression": trigger_regression(stats),
        "variants": first.sweeps["variants"],
        "mixed": mixed_models(results),
        "peaks": peaks,
    }


def provenance(controls: list[ControlResults]) -> dict[str, object]:
    """A record that nothing reported on a task was calibrated or selected on the same problems.

    Args:
        controls: controls of each prompt of the task; the first one has sweeps.

    Returns:
        `alpha` of each prompt, the `selected` value of each option, and the ids of the problems that thresholds and
        values were `calibrated_on` and that results are `reported_on`.
    """
    assert controls[0].sweeps is not None
    selected = controls[0].sweeps["sensitivity"].query("selected and split == 'test'")
    results = [control.study.results for control in controls]
    return {
        "alpha": {control.study.prompt: control.study.results.rule.threshold for control in controls},
        "selected": dict(zip(selected["option"], selected["value"].astype(str), strict=True)),
        "calibrated_on": sorted({instance for result in results for instance in result.validation["instance"]}),
        "reported_on": sorted({instance for result in results for instance in result.instances["instance"]}),
    }


def write_control_tables(tables: list[Frames], folder: Path) -> list[str]:
    """Write tab3 to tab6.

    Args:
        tables: the frames of `draw_task`, one dict per task.
        folder: folder of the tables.

    Returns:
        The tables as Markdown, each after its heading.
    """
    text = []
    for name, key, as_cells, title in (
        ("tab3_triggers", "triggers", triggers_table, "Triggers at one firing rate"),
        ("tab4_regression", "regression", regression_table, "Is the trigger more than length or confidence?"),
        ("tab5_corruptions", "variants", variants_table, "Corruptions compared, first prompt"),
        ("tab6_mixed_models", "mixed", mixed_table, "C5 and C2 with prompts and problems as random effects"),
    ):
        frame = pd.concat([frames[key] for frames in tables], ignore_index=True)
        save_table(frame, folder / name)
        text += [f"## {name}: {title}", markdown(as_cells(frame))]
    return text


def run_controls(args: argparse.Namespace, prompts: Mapping[str, list[str]]) -> dict[str, list[ControlResults]]:
    """Run the controls of every prompt.

    Args:
        args: the parsed command line.
        prompts: names of bundled prompts, by task.

    Returns:
        The results of the prompts of each task, in their order.
    """
    sizes = Sizes(**{size.name: getattr(args, f"n_{size.name}") for size in fields(Sizes)})
    settings = read_settings(args)
    jobs = [
        RunControls(settings, task, name, sizes, with_sweeps=not k)
        for task, names in prompts.items()
        for k, name in enumerate(names)
    ]
    jobs.sort(key=lambda job: not job.with_sweeps)  # start the longest jobs first
    controls = map_processes(jobs, "evaluate and control")
    by_task = {task: [control for control in controls if control.study.task == task] for task in prompts}
    return {task: [_with_shared_answers(control, same[0]) for control in same] for task, same in by_task.items()}


def _with_shared_answers(control: ControlResults, first: ControlResults) -> ControlResults:
    return replace(control, study=add_shared_answers(control.study, first.study))


def main() -> None:
    """Draw fig8 to fig11 and judge every claim, for one model."""
    parser = build_parser(main.__doc__)
    for size in fields(Sizes):
        parser.add_argument(f"--n-{size.name}", type=int, default=size.default, help=SIZE_HELP[size.name])
    args = parser.parse_args()
    start = time.perf_counter()
    by_task = run_controls(args, prompts_of(args.model, args.tasks, args.seeds))
    text = [
        f"# Controls of {args.model}",
        f"Written by `make verdicts`: {args.n} test problems a task (seed 0), {args.n_validation} validation problems "
        "that calibrate and select, every prompt for fig8, fig9, tab3, tab4, tab6 and the verdicts, the first one for "
        "fig10, fig11 and tab5; intervals are 95%. Verdicts on the claims: [VERDICTS.md](../VERDICTS.md).",
    ]
    tables: list[Frames] = []
    for i, (task, controls) in enumerate(by_task.items()):
        captions, frames = draw_task(controls, args.out / task if i else args.out)
        tables.append(frames)
        text += [f"## {task}", "\n".join(f"- {caption}" for caption in captions)]
    text += write_control_tables(tables, args.out)
    (args.out / "CONTROLS.md").write_text("\n\n".join(text) + "\n")
    provenance_by_task = {task: provenance(controls) for task, controls in by_task.items()}
    (args.out / "provenance.json").write_text(json.dumps(provenance_by_task, indent=1) + "\n")
    peaks = pd.concat([frames["peaks"] for frames in tables], ignore_index=True)
    results = [control.study.results for control in chain(*by_task.values())]
    save_table(verdicts(results, model=args.model, controls=peaks), args.out / "verdicts")
    by_prompt = [
        verdicts([result], model=args.model, controls=peaks).assign(prompt=result.prompt) for result in results
    ]
    save_table(pd.concat(by_prompt, ignore_index=True), args.out / "verdicts_by_prompt")
    regimes = regime(results)
    save_table(regimes, args.out / "regime")
    with plots.style_context():
        figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.6), layout="constrained")
        plots.plot_regime(regimes, ax=ax)
        save_figure(figure, args.out / "regime")
    page = write_page(args.out.parent)
    print(f"wrote {args.out} and {page} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
