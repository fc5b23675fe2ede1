"""`study`: the whole analysis of any model on any problems with any tuned prompts.

A study evaluates every prompt of every task, draws the paper's figures, runs the controls and judges the claims. Each
part is computed when it is first needed; with `out` finished parts are stored, so that an interrupted study resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from dpc_interp import plots
from dpc_interp.analysis.options import Options
from dpc_interp.claims.regime import regime
from dpc_interp.claims.verdicts import verdicts
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.ablation import ablate
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.evaluation.grid import ProblemSample, Prompts, Tasks, as_task_list, load_prompts, load_tasks
from dpc_interp.execution.digest import digest
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.host.processes import map_processes
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import check_prompt
from dpc_interp.study.control_page import measure_task, write_controls
from dpc_interp.study.control_runs import ControlResults, ControlSizes, RunControls
from dpc_interp.study.evaluated import EvaluatedPrompt, StudySettings, StudyTask, add_shared_answers
from dpc_interp.study.figures import EvaluateAndDraw, write_page
from dpc_interp.study.paper_figures import FIGURES, draw_figures
from dpc_interp.study.report import write_report
from dpc_interp.study.source import ModelSource
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import has_validation, is_file_name, load_problems

HELD_OUT = 0.3
"""Share of the problems of a task without validation problems that calibrates instead of being reported."""
Result = TypeVar("Result")


def study(
    model: str | Path | HookedModel,
    problems: Tasks,
    prompts: Prompts | Mapping[str, Prompts],
    out: str | Path | None = None,
    *,
    load_options: Mapping[str, Any] | None = None,
    sample: ProblemSample | None = None,
    options: Options | None = None,
    run: RunConfig | None = None,
    sizes: ControlSizes | None = None,
    **fields: Any,
) -> Study:
    """Study tuned prompts of a model: results, figures, controls and verdicts on the paper's claims.

    Args:
        model: a name or path of `load_model`, or a loaded model.
        problems: names or paths of `load_problems`, or lists of problems of one task each; one or several.
        prompts: names or paths of `load_prompt`, or loaded prompts, one or several; all tasks are answered with each.
            By task, where tasks have prompts of their own. Verdicts need several tuning seeds.
        out: folder that keeps every finished part; the same call resumes there. None: nothing is stored.
        load_options: keywords of `load_model`, such as `dtype`, where the model is given by its name.
        sample: which problems are drawn of named tasks, and the `validation` problems of tasks that have no validation
            split; None: the defaults of `ProblemSample`. Where a task has neither, as a file, 30% of its problems
            calibrate, and the first `n` of the others are reported.
        options: what is computed; None: the defaults of `Options`.
        run: how it is run; None: the defaults of `RunConfig`. `engine="processes"` evaluates prompts side by side, one
            process a core, each with its own copy of a small model that is given by name.
        sizes: how many problems the controls use; None: the defaults of `ControlSizes`.
        fields: single fields of `ProblemSample`, `Options`, `RunConfig` and `ControlSizes` by their own names.

    Returns:
        The study; nothing has been generated yet.

    Raises:
        DPCInterpError: whatever `load_model`, `load_problems` and `load_prompt` refuse, a prompt that does not fit the
            model, a task without prompts or without validation problems, or a loaded model with engine "processes".

    Example:
        >>> import dpc_interp as dpc
        >>> prompts = ["reasoner/story/seed0", "reasoner/story/seed1"]
        >>> dpc.study("reasoner", "story", prompts, n=4, progress=False).tasks
        ['story']
    """
    if out is not None:
        fields["out"] = out
    sample, options, run, sizes = read_keywords(
        fields, sample or ProblemSample(), options or Options(), run or RunConfig(), sizes or ControlSizes()
    )
    keywords = dict(load_options or {})
    if run.engine == "processes":
        keywords["device"] = keywords.get("device") or "cpu"
        if str(keywords["device"]) != "cpu":
            raise DPCInterpError('engine="processes" runs on the CPU, one process a core; leave out the device')
    source = ModelSource(model, keywords)
    if source.is_loaded and load_options:
        raise DPCInterpError("load_options are for a model that is given by its name; this one is loaded")
    if run.engine == "processes" and source.is_loaded:
        raise DPCInterpError('engine="processes" loads the model in each process; give its name or path')
    if run.engine == "processes" and run.out is None:
        raise DPCInterpError('engine="processes" needs a folder where its processes leave their results; give out=')
    loaded = source.load()
    listed, sample = hold_out_validation(problems, sample)
    tasks = []
    by_task = load_tasks(listed, sample)
    unknown = [name for name in prompts if name not in by_task] if isinstance(prompts, Mapping) else []
    if unknown:
        raise DPCInterpError(f"there are prompts for {unknown[0]!r}, but no problems; tasks: {', '.join(by_task)}")
    for name, by_split in by_task.items():
        if isinstance(prompts, Mapping) and name not in prompts:
            raise DPCInterpError(f"there is no prompt for {name!r}; prompts are given for: {', '.join(prompts)}")
        tuned = load_prompts(prompts[name] if isinstance(prompts, Mapping) else prompts)
        for prompt in tuned:
            check_prompt(loaded, prompt.vectors)
        tasks.append(StudyTask(name, by_split["test"], by_split["validation"], tuned))
    if run.engine != "processes":  # all jobs run in this process, so the model is loaded once
        source = ModelSource(loaded)
    folder = None if run.out is None else Path(run.out)
    made = Study(StudySettings(source, folder, options, run), tasks, sizes, name=ModelSource(model).name)
    made.given = describe_call(model, problems, prompts, out=out, sample=sample, options=options, run=run, sizes=sizes)
    return made


def describe_call(model: object, problems: object, prompts: object, **settings: Any) -> str:
    """The call of `study` as Python code, in which loaded things are shown by their names in angle brackets.

    Args:
        model, problems, prompts: see `study`.
        settings: dataclasses, of which only what differs from the defaults is shown, and other keywords.
    """

    def show(value: object) -> str:
        if isinstance(value, Problem):
            return f"<a problem of {value.task}>"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{name!r}: {show(one)}" for name, one in value.items()) + "}"
        if isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Problem):
                return f"<{len(value)} problems of {value[0].task}>"
            return "[" + ", ".join(map(show, value)) + "]"
        if value is None or isinstance(value, str | int | float | bool):
            return repr(value)
        return repr(str(value)) if isinstance(value, Path) else f"<{getattr(value, 'name', type(value).__name__)}>"

    keywords: dict[str, object] = {}
    for name, value in settings.items():
        if is_dataclass(value) and not isinstance(value, type):
            default = type(value)()
            changed = {field.name: getattr(value, field.name) for field in fields(value)}
            keywords |= {key: one for key, one in changed.items() if one != getattr(default, key)}
        elif value is not None:
            keywords[name] = value
    arguments = [show(model), show(problems), show(prompts)]
    return f"dpc.study({', '.join([*arguments, *(f'{name}={show(value)}' for name, value in keywords.items())])})"


def hold_out_validation(problems: Tasks, sample: ProblemSample) -> tuple[list[Any], ProblemSample]:
    """Take validation problems from each task that has none.

    Args:
        problems: see `study`.
        sample: which problems are drawn.

    Returns:
        The tasks without these problems, and the sample with them. They are `HELD_OUT` of the problems, at most
        `sample.n_validation`, those whose questions have the smallest hashes. Of a file at most `sample.n` of the
        others are left; a list is reported whole.
    """
    tasks: list[str | Sequence[Problem]] = []
    validation = dict(sample.validation)
    for entry in as_task_list(problems):
        is_file = isinstance(entry, str | Path) and not has_validation(entry)
        # all of a file: what is reported is cut to `n` after these problems are taken
        rows = load_problems(entry, "test", None if is_file_name(entry) else sample.n) if is_file else entry
        if isinstance(rows, str) or not rows:
            tasks.append(rows)
            continue
        name = rows[0].task
        if name not in validation and (is_file or not has_validation(name)):
            ordered = sorted(rows, key=lambda problem: digest(problem.question.encode()))
            validation[name] = ordered[: round(HELD_OUT * len(rows))][: sample.n_validation]
            held = {problem.id for problem in validation[name]}
            rows = [problem for problem in rows if problem.id not in held]
        tasks.append(rows[: sample.n] if is_file else rows)
    return tasks, replace(sample, validation=validation)


class Study:
    """A study; see `study`, which makes one.

    Args:
        settings: what all its jobs share.
        tasks: with their prompts.
        sizes: of the controls.
        name: of the model.
    """

    def __init__(self, settings: StudySettings, tasks: Sequence[StudyTask], sizes: ControlSizes, name: str):
        self._settings, self._tasks, self._sizes, self.name = settings, list(tasks), sizes, name
        self._captions: dict[str, list[str]] = {}
        self.given = repr(self)
        """The call that made the study, for the report."""

    def __repr__(self) -> str:
        n_prompts = sum(len(task.prompts) for task in self._tasks)
        return f"Study({self.name!r}, tasks={self.tasks}, {n_prompts} prompts)"

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""
        return [task.name for task in self._tasks]

    @cached_property
    def parts(self) -> list[EvaluatedPrompt]:
        """Every prompt evaluated, in the order of tasks and prompts."""
        return self._evaluate(None)

    @property
    def results(self) -> list[Results]:
        """The results of every prompt, in the order of tasks and prompts."""
        return [part.results for part in self.parts]

    def regime(self) -> pd.DataFrame:
        """Whether the experiment of each task is in the paper's regime; see `regime`."""
        return regime(self.results)

    def verdicts(self) -> pd.DataFrame:
        """The claims judged on each task; see `verdicts`. It runs the controls."""
        results = [control.study.results for control in chain(*self.controls.values())]
        return verdicts(results, model=self.name, controls=self.peaks())

    def peaks(self) -> pd.DataFrame:
        """The accumulation tokens under every control prompt; see `control_peaks`. It runs the controls."""
        return pd.concat([control.peaks for control in chain(*self.controls.values())], ignore_index=True)

    @cached_property
    def controls(self) -> dict[str, list[ControlResults]]:
        """The controls of every prompt, by task; knock-outs and sweeps, which take longest, of first prompts only."""
        # other processes read evaluations from the folder; in this one they are at hand
        parts = [] if self._settings.run.engine == "processes" else self.parts
        evaluated = {(part.task, part.prompt.name): part for part in parts}
        jobs = [
            RunControls(
                self._settings, task, prompt, self._sizes, not k, evaluated=evaluated.get((task.name, prompt.name))
            )
            for task in self._tasks
            for k, prompt in enumerate(task.prompts)
        ]
        jobs.sort(key=lambda job: not job.with_sweeps)  # the longest jobs first
        controls = self._run(jobs, "evaluate and control")
        by_task = {name: [control for control in controls if control.study.task == name] for name in self.tasks}
        return {name: [control.with_shared_answers(same[0]) for control in same] for name, same in by_task.items()}

    def ablation(self, grid: Mapping[str, Sequence[Any]], **keywords: Any) -> pd.DataFrame:
        """`ablate` on the first prompt of each task.

        Args:
            grid: field of `Options` -> its values.
            keywords: others of `ablate`, such as `methods`.
        """
        model = self._settings.source.load()
        run, options = self._settings.run_in("ablation"), self._settings.options
        rows = []
        for task in self._tasks:
            sample = ProblemSample(validation={task.name: task.validation})
            settings = {"grid": grid, "sample": sample, "options": options, "run": run, **keywords}
            rows.append(ablate(model, list(task.test), task.prompts[0], **settings))
        return pd.concat(rows, ignore_index=True)

    def figure(self, name: str, task: str | None = None) -> Figure:
        """Draw one of the paper's figures.

        Args:
            name: key of `FIGURES`: case, saliency_maps, accumulation, layer_flow, step_flow, trigger, cooccurrence.
            task: whose first prompt is drawn; None: the first task.

        Raises:
            UnknownNameError: an unknown figure or task.
        """
        if name not in FIGURES:
            raise UnknownNameError("figure", name, list(FIGURES))
        if task is not None and task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks)
        part = next(part for part in self.parts if part.task == (task or self.tasks[0]))
        with plots.style_context():
            return FIGURES[name](part).figure

    def figures(self, folder: str | Path) -> Path:
        """Write fig1 to fig7 of the first prompt of each task, tab1 and tab2, and README.md, which lists them.

        Args:
            folder: of the files; figures of further tasks are written into subfolders.

        Returns:
            The path of the page.
        """
        out = Path(folder)
        if "parts" in self.__dict__:  # evaluated already
            for i, task in enumerate(self._tasks):
                first = next(part for part in self.parts if part.task == task.name)
                self._captions[task.name] = draw_figures(first, out / task.name if i else out)
        else:
            self.__dict__["parts"] = self._evaluate(out)
        parts = self.parts
        return write_page(self.name, self._tasks, parts, self._captions, out)

    def control_figures(self, folder: str | Path) -> Path:
        """Run the controls; write fig8 to fig11, tab3 to tab6, regime, verdicts, and CONTROLS.md, which lists them.

        Args:
            folder: of the files; figures of further tasks are written into subfolders.

        Returns:
            The path of the page.
        """
        return write_controls(self.name, self._tasks, self.controls, Path(folder))

    def report(self, file: str | Path) -> Path:
        """Write the report: what was run, the regime, verdicts, tables and every figure. It runs the controls.

        Args:
            file: path of the report, one HTML file that needs no other and makes no request.

        Returns:
            The path.
        """
        measured = {task: measure_task(controls) for task, controls in self.controls.items()}
        parts = [control.study for control in chain(*self.controls.values())]
        return write_report(self.name, self._tasks, parts, measured, self.verdicts(), self.given, Path(file))

    def _evaluate(self, out: Path | None) -> list[EvaluatedPrompt]:
        """Evaluate every prompt; draw the figures of the first one of each task where there is a folder."""
        jobs = [
            EvaluateAndDraw(
                self._settings,
                task,
                prompt,
                with_shared=not k,
                folder=None if k or out is None else (out / task.name if i else out),
            )
            for i, task in enumerate(self._tasks)
            for k, prompt in enumerate(task.prompts)
        ]
        # jobs that draw take longest: start them first, so that none of them runs alone at the end
        order = sorted(range(len(jobs)), key=lambda j: (jobs[j].folder is None, -j))
        desc = "evaluate" if out is None else "evaluate and draw"
        results = dict(zip(order, self._run([jobs[j] for j in order], desc), strict=True))
        parts, first = [], {}
        for j, job in enumerate(jobs):
            part, captions = results[j]
            if job.with_shared:
                self._captions[job.task.name], first[job.task.name] = captions, part
            parts.append(add_shared_answers(part, first[job.task.name]))
        return parts

    def _run(self, jobs: Sequence[Callable[[], Result]], desc: str) -> list[Result]:
        """The results of independent jobs, in their order."""
        run = self._settings.run
        if run.engine == "processes":
            return map_processes(jobs, desc, run.n_workers)
        return [job() for job in tqdm(jobs, desc=desc, unit="job", disable=not run.progress)]
