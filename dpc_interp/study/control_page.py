"""fig8 to fig11, tab3 to tab6, the regime and the verdicts of a study, and the page that lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from dpc_interp import plots
from dpc_interp.analysis.controls import sink_summary
from dpc_interp.claims.mixed_models import mixed_models, mixed_table
from dpc_interp.claims.regime import regime
from dpc_interp.claims.trigger_tables import regression_table, triggers_table
from dpc_interp.claims.triggers import compare_triggers
from dpc_interp.claims.verdicts import verdicts
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.tables import markdown, variants_table
from dpc_interp.execution.engine import Frames
from dpc_interp.stats.regression import trigger_regression
from dpc_interp.study.control_figures import (
    RATES,
    fig8_sink_control,
    fig9_triggers,
    fig10_causal,
    fig11_sensitivity,
    fig11_single_tokens,
)
from dpc_interp.study.control_runs import ControlResults
from dpc_interp.study.evaluated import StudyTask, sizes_of
from dpc_interp.study.output import Drawing, draw_or_explain, save_figure, save_table


@dataclass(frozen=True)
class TaskControls:
    """What the controls of one task show.

    Attributes:
        drawings: name of each figure -> the function that draws it, in the order of their numbers.
        frames: triggers, regression, variants and mixed, of which the tables are made, where they could be measured.
        lacking: name of a frame -> why it could not be measured.
    """

    drawings: Mapping[str, Callable[[], Drawing]]
    frames: Frames
    lacking: Mapping[str, str]


def measure_task(controls: list[ControlResults]) -> TaskControls:
    """Compare the triggers of one task and prepare fig8 to fig11.

    Args:
        controls: controls of each prompt of the task; the first one has effects and sweeps.
    """
    first = controls[0]
    assert first.effects is not None
    assert first.sweeps is not None
    peaks = pd.concat([control.peaks for control in controls], ignore_index=True)
    results = [control.evaluated.results for control in controls]
    stats = pd.concat([result.statistics.assign(prompt=result.prompt) for result in results], ignore_index=True)
    frames: dict[str, pd.DataFrame] = {"variants": first.sweeps["variants"]}
    lacking = {}
    for name, measure in (
        ("triggers", partial(compare_triggers, results)),
        ("regression", partial(trigger_regression, stats)),
        ("mixed", partial(mixed_models, results)),
    ):
        try:
            frames[name] = measure()
        except DPCInterpError as error:  # for example all validation answers are alike
            lacking[name] = str(error)
    drawings: dict[str, Callable[[], Drawing]] = {
        "fig8_sink_control": partial(fig8_sink_control, first.evaluated, first.sinks, sink_summary(peaks)),
        "fig10_causal": partial(fig10_causal, first.effects),
        "fig11_sensitivity": partial(fig11_sensitivity, first.sweeps),
        "fig11_single_tokens": partial(fig11_single_tokens, first.sweeps),
    }
    if "triggers" in frames:
        by_rate = compare_triggers(results, RATES)
        drawings["fig9_triggers"] = partial(fig9_triggers, frames["triggers"], by_rate)
    return TaskControls({name: drawings[name] for name in sorted(drawings, key=_number)}, frames, lacking)


def draw_task(measured: TaskControls, folder: Path) -> list[str]:
    """Draw fig8 to fig11 of one task.

    Args:
        measured: of `measure_task`.
        folder: folder of the figures; it is created.

    Returns:
        A caption for each figure, and why frames could not be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plots.style_context():
        captions = [draw_or_explain(name, draw, folder) for name, draw in measured.drawings.items()]
    return captions + [f"{name}: not measured: {reason}." for name, reason in measured.lacking.items()]


def _number(name: str) -> int:
    """The number of a figure."""
    return int(name.partition("_")[0].removeprefix("fig"))


def provenance(task: StudyTask, controls: list[ControlResults]) -> dict[str, object]:
    """A record that nothing reported on a task was calibrated or selected on the same problems.

    Args:
        task: of the study.
        controls: controls of each of its prompts; the first one has sweeps.

    Returns:
        `alpha` of each prompt (None: no trigger), the `selected` value of each option, and the ids of the problems that
        thresholds and values were `calibrated_on` and that results are `reported_on`.
    """
    assert controls[0].sweeps is not None
    selected = controls[0].sweeps["sensitivity"].query("selected and split == 'test'")
    results = [control.evaluated.results for control in controls]
    thresholds = {control.evaluated.prompt.name: control.evaluated.results.rule.threshold for control in controls}
    return {
        "alpha": {name: alpha if np.isfinite(alpha) else None for name, alpha in thresholds.items()},
        "selected": dict(zip(selected["option"], selected["value"].astype(str), strict=True)),
        "calibrated_on": sorted(problem.id for problem in task.validation),
        "reported_on": sorted({instance for result in results for instance in result.instances["instance"]}),
    }


def write_control_tables(tables: list[Frames], folder: Path) -> list[str]:
    """Write tab3 to tab6.

    Args:
        tables: the frames of `TaskControls`, one dict per task.
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
        measured = [frames[key] for frames in tables if key in frames]
        if not measured:
            continue
        frame = pd.concat(measured, ignore_index=True)
        save_table(frame, folder / name)
        text += [f"## {name}: {title}", markdown(as_cells(frame))]
    return text


def write_controls(
    name: str,
    tasks: Sequence[StudyTask],
    controls: Mapping[str, list[ControlResults]],
    measured: Mapping[str, TaskControls],
    out: Path,
) -> Path:
    """Write figures, tables and CONTROLS.md, which lists them.

    Args:
        name: of the model.
        tasks: of the study.
        controls: of each prompt of each task.
        measured: of each task, see `measure_task`.
        out: folder of the files; figures of further tasks are written into subfolders.

    Returns:
        The path of the page.
    """
    n, n_validation = sizes_of(tasks)
    text = [
        f"# Controls of {name}",
        f"{n} test problems a task, {n_validation} validation problems "
        "that calibrate and select, every prompt for fig8, fig9, tab3, tab4, tab6 and the verdicts, the first one for "
        "fig10, fig11 and tab5; intervals are 95%. The verdicts on the claims are in verdicts.csv.",
    ]
    for i, task in enumerate(tasks):
        captions = draw_task(measured[task.name], out / task.name if i else out)
        text += [f"## {task.name}", "\n".join(f"- {caption}" for caption in captions)]
    text += write_control_tables([measured[task.name].frames for task in tasks], out)
    page = out / "CONTROLS.md"
    page.write_text("\n\n".join(text) + "\n")
    provenance_by_task = {task.name: provenance(task, controls[task.name]) for task in tasks}
    (out / "provenance.json").write_text(json.dumps(provenance_by_task, indent=1) + "\n")
    return page


def write_verdicts(
    judged: pd.DataFrame, controls: Mapping[str, list[ControlResults]], peaks: pd.DataFrame, out: Path
) -> None:
    """Write the verdicts over all prompts, those of each prompt, and the regime.

    Args:
        judged: frame of `verdicts`, of one model.
        controls: of each prompt of each task.
        peaks: `control_peaks` of every prompt.
        out: folder of the files; it exists.
    """
    results = [control.evaluated.results for control in chain(*controls.values())]
    save_table(judged, out / "verdicts")
    name = judged["model"].iloc[0]
    by_prompt = [verdicts([result], model=name, controls=peaks).assign(prompt=result.prompt) for result in results]
    save_table(pd.concat(by_prompt, ignore_index=True), out / "verdicts_by_prompt")
    regimes = regime(results)
    save_table(regimes, out / "regime")
    with plots.style_context():
        figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.6), layout="constrained")
        plots.plot_regime(regimes, ax=ax)
        save_figure(figure, out / "regime")
