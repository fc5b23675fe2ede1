"""The report of a study: one HTML file that needs no other file and makes no request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup

from dpc_interp import plots
from dpc_interp.claims.regime import regime, regime_table
from dpc_interp.claims.verdict_page import REGIME_TEXT, claim_lines, verdicts_table
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.tables import accuracy_table
from dpc_interp.models.hooked import HookedModel
from dpc_interp.plots.fonts import use_fallback_fonts
from dpc_interp.repr_html import card, table_block
from dpc_interp.study.accuracy_tables import pool_prompts
from dpc_interp.study.evaluated import EvaluatedPrompt, StudyTask, sizes_of
from dpc_interp.study.output import Drawing, close_new_figures, why_missing
from dpc_interp.study.paper_figures import FIGURES
from dpc_interp.tasks.problem import Problem
from dpc_interp.views.case import Case
from dpc_interp.views.case_page import describe_case
from dpc_interp.views.page import view_block, view_script

PACKAGES = ("dpc_interp", "transformer-lens", "torch", "transformers")
MIN_PROMPTS = 3
"""Tuned prompts of a task below which the report warns."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure in the report; `data` is its SVG in base 64, empty where it cannot be drawn."""

    name: str
    caption: str
    data: str


def write_report(
    name: str,
    call: str,
    tasks: Sequence[StudyTask],
    parts: Sequence[EvaluatedPrompt],
    figures: Mapping[str, Sequence[ReportFigure]],
    cases: Mapping[str, Callable[[], Case]],
    verdicts: pd.DataFrame,
    file: Path,
) -> Path:
    """Write the report.

    Args:
        name: of the model.
        call: the call that made the study.
        tasks: of the study.
        parts: every evaluated prompt.
        figures: name of a task -> its figures.
        cases: name of a task -> the function that computes the instance whose view is shown; a task may have none.
        verdicts: frame of `verdicts`.
        file: path of the report.

    Returns:
        The path.
    """
    results = [part.results for part in parts]
    by_task = {task.name: [part for part in parts if part.task == task.name] for task in tasks}
    n, n_validation = sizes_of(tasks)
    html = _template().render(
        name=name,
        introduction=f"{n} test problems a task, {n_validation} validation problems that calibrate and select. "
        "Intervals are 95%. Figures show the first prompt of a task; tables and verdicts use every prompt.",
        warnings=list_warnings(tasks, parts, verdicts),
        prompts=_table(_prompts_table(tasks)),
        versions=", ".join(f"{package} {version(package)}" for package in PACKAGES),
        lengths=", ".join(f"{task} {same[0].results.options.max_new_tokens}" for task, same in by_task.items()),
        call=call,
        regime_text=REGIME_TEXT.replace("*", ""),
        regime=_table(regime_table(regime(results))),
        claims=[line.removeprefix("- ").replace("**", "") for line in claim_lines(verdicts)],
        verdicts=_table(verdicts_table(verdicts)),
        accuracy=_table(accuracy_table(pool_prompts(results))),
        tasks=[{"name": task, "figures": drawn, "view": _view(cases.get(task))} for task, drawn in figures.items()],
        view_script=view_script() if cases else "",
        version=version("dpc_interp"),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, encoding="utf-8")
    return file


def describe_call(model: object, problems: object, prompts: object, keywords: Mapping[str, object]) -> str:
    """The call of `study` as Python code, in which loaded things are shown by their names in angle brackets.

    Args:
        model, problems, prompts: see `study`.
        keywords: others; those that are None are left out.
    """

    def show(value: object) -> str:
        if isinstance(value, Problem):
            return f"<a problem of {value.task}>"
        if isinstance(value, Mapping):
            shown = [f"{name!r}: {show(one)}" for name, one in value.items() if one is not None]
            return "{" + ", ".join(shown) + "}"
        if isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Problem):
                return f"<{len(value)} problems of {value[0].task}>"
            return "[" + ", ".join(map(show, value)) + "]"
        if value is None or isinstance(value, str | int | float | bool):
            return repr(value)
        return repr(str(value)) if isinstance(value, Path) else f"<{getattr(value, 'name', type(value).__name__)}>"

    named = [f"{name}={show(value)}" for name, value in keywords.items() if value is not None]
    return f"dpc.study({', '.join([show(model), show(problems), show(prompts), *named])})"


def study_card(
    name: str, call: str, tasks: Sequence[StudyTask], folder: Path | None, state: Mapping[str, object]
) -> str:
    """How a study shows itself in a notebook. Nothing is computed.

    Args:
        name: of the model.
        call: that made the study.
        tasks: of the study.
        folder: of the finished stages.
        state: attributes of the study; its cached properties are among them once they are computed.
    """
    parts = {"_parts": "results", "_controls": "controls", "_verdicts": "verdicts"}
    computed = ", ".join(what for part, what in parts.items() if part in state)
    rows = [(t.name, len(t.test), len(t.validation), ", ".join(prompt.name for prompt in t.prompts)) for t in tasks]
    table = pd.DataFrame(rows, columns=["task", "test", "validation", "prompts"])
    facts = {"folder": folder, "computed": computed or "nothing yet"}
    return card(f"Study of {name}", facts, table_block(table), note=call)


def list_warnings(tasks: Sequence[StudyTask], parts: Sequence[EvaluatedPrompt], verdicts: pd.DataFrame) -> list[str]:
    """What a reader should know before the numbers.

    Args:
        tasks: of the study.
        parts: every evaluated prompt.
        verdicts: frame of `verdicts`.
    """
    warnings = []
    for task in tasks:
        answers = pd.concat([part.results.instances for part in parts if part.task == task.name])
        cut = 1 - answers.loc[answers["method"] == "pt", "finished"].mean()
        if cut > 0:
            warnings.append(f"{task.name}: {100 * cut:.1f}% of the texts with the prompt reached the length limit.")
        if len(task.prompts) < MIN_PROMPTS:
            warnings.append(
                f"{task.name}: {len(task.prompts)} tuned prompt{'s' * (len(task.prompts) != 1)}; to find an effect as "
                "large as the paper's takes about ten tuning seeds."
            )
    for (task_name, reason), rows in verdicts[verdicts["verdict"] == "not testable"].groupby(["task", "reason"]):
        warnings.append(f"{task_name}: {', '.join(rows['claim'])} not testable: {reason}.")
    return warnings


def list_figures(
    part: EvaluatedPrompt, model: HookedModel, controls: Mapping[str, Callable[[], Drawing]]
) -> list[ReportFigure]:
    """The figures of one task as SVG.

    Args:
        part: its first prompt.
        model: that was evaluated.
        controls: name -> the function that draws a figure of its controls.
    """
    drawings: dict[str, Callable[[], Drawing]] = {
        draw.__name__: partial(draw, part, model) for draw in FIGURES.values()
    }
    with plots.style_context(), plt.rc_context({"svg.hashsalt": "dpc_interp"}):
        return [_as_svg(name, draw) for name, draw in (drawings | dict(controls)).items()]


def _as_svg(name: str, draw: Callable[[], Drawing]) -> ReportFigure:
    open_before = set(plt.get_fignums())
    data = BytesIO()
    try:
        drawing = draw()
        use_fallback_fonts(drawing.figure)
        drawing.figure.savefig(data, format="svg", metadata=plots.STABLE_METADATA["svg"])
    except (DPCInterpError, RuntimeError, MemoryError) as error:
        close_new_figures(open_before)
        return ReportFigure(name, f"not drawn: {why_missing(error)}", "")
    plt.close(drawing.figure)
    return ReportFigure(name, drawing.caption, base64.b64encode(data.getvalue()).decode())


def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("report.html.jinja")


def _view(compute: Callable[[], Case] | None) -> Markup | str:
    if compute is None:
        return ""
    try:
        return view_block({}, {0: describe_case(compute())})
    except (DPCInterpError, RuntimeError, MemoryError) as error:
        return f"not shown: {why_missing(error)}"


def _table(frame: pd.DataFrame) -> Markup:
    return Markup(frame.to_html(index=False, border=0, escape=True))


def _prompts_table(tasks: Sequence[StudyTask]) -> pd.DataFrame:
    rows = [
        {
            "task": task.name,
            "prompt": prompt.name,
            "virtual tokens": prompt.n_virtual,
            "tuned for": prompt.base_model or "–",
            "seed": prompt.recipe.get("seed", "–"),
        }
        for task in tasks
        for prompt in task.prompts
    ]
    return pd.DataFrame(rows)
