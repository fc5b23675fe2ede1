"""`study`: the whole analysis of any model on any problems with any tuned prompts.

A study evaluates every prompt of every task, draws the paper's figures, runs the controls and judges the claims. Each
part is computed when it is first needed; with `out` finished parts are stored, so that an interrupted study resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from dpc_interp import plots
from dpc_interp.analysis.options import Options
from dpc_interp.claims.regime import regime
from dpc_interp.claims.verdicts import verdicts
from dpc_interp.errors import UnknownNameError
from dpc_interp.evaluation.ablation import ablate
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.evaluation.grid import ProblemSample, Prompts, Tasks, as_task_list, load_tasks
from dpc_interp.evaluation.held_out import hold_out_validation
from dpc_interp.execution.engine import Job, Result
from dpc_interp.execution.keywords import changed_keywords, read_keywords
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import check_prompt
from dpc_interp.study.control_page import TaskControls, measure_task, write_controls, write_verdicts
from dpc_interp.study.control_runs import ControlResults, ControlSizes, RunControls
from dpc_interp.study.evaluated import (
    EvaluatedPrompt,
    EvaluatePrompt,
    StudySettings,
    StudyTask,
    add_shared_answers,
    find_run,
)
from dpc_interp.study.figure_page import write_figure_page
from dpc_interp.study.paper_figures import FIGURES, DrawFigures, typical_instance
from dpc_interp.study.report import describe_call, list_figures, study_card, write_report
from dpc_interp.study.study_inputs import load_for_engine, name_of_model, with_prompts
from dpc_interp.study.study_plan import Costs, StudyPlan, plan_study
from dpc_interp.views.case import Case, case
from dpc_interp.views.instances import instances_table


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
        problems: names, paths or rows of `load_problems`, or lists of problems of one task each; one or several.
        prompts: names or paths of `load_prompt`, or loaded prompts, one or several; all tasks are answered with each.
            By task, where tasks have prompts of their own. Verdicts need several tuning seeds.
        out: folder that keeps every finished part; the same call resumes there. None: nothing is stored.
        load_options: keywords of `load_model`, such as `dtype`, where the model is given by its name.
        sample: which problems are drawn of named tasks, and the `validation` problems of tasks that have no validation
            split; None: the defaults of `ProblemSample`. Where a task has neither, as a file, 30% of its problems (and
            any others of the same questions) calibrate, and the first `n` of the others are reported.
        options: what is computed; None: the defaults of `Options`.
        run: how it is run; None: the defaults of `RunConfig`. With another engine than `local` prompts are evaluated
            side by side, each by one worker; workers on several machines need `out` on a file system that they share.
        sizes: how many problems the controls use; None: the defaults of `ControlSizes`.
        fields: single fields of `ProblemSample`, `Options`, `RunConfig` and `ControlSizes` by their own names.

    Returns:
        The study; nothing has been generated yet.

    Raises:
        DPCInterpError: whatever `load_model`, `load_problems` and `load_prompt` refuse, a prompt that does not fit the
            model, a task without prompts or without validation problems, or a model that the engine cannot use.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.study(model, "story", prompts, n=4, progress=False).tasks
        ['story']
    """
    if out is not None:
        fields["out"] = out
    sample, options, run, sizes = read_keywords(
        fields, sample or ProblemSample(), options or Options(), run or RunConfig(), sizes or ControlSizes()
    )
    loaded = load_for_engine(model, run, load_options)
    given_tasks = as_task_list(problems)
    by_task = load_tasks(*hold_out_validation(given_tasks, sample))
    tasks = [
        StudyTask(name, by_split["test"], by_split["validation"], tuned)
        for name, by_split, tuned in with_prompts(by_task, prompts)
    ]
    for task in tasks:
        for prompt in task.prompts:
            check_prompt(loaded, prompt.vectors)
    settings = StudySettings(None if run.out is None else Path(run.out).absolute(), options, run)
    given = {"load_options": load_options} | changed_keywords(sample, options, run, sizes)
    call = describe_call(model, given_tasks[0] if len(given_tasks) == 1 else given_tasks, prompts, given)
    return Study(loaded, settings, tasks, sizes, name=name_of_model(model), call=call)


class Study:
    """A study; see `study`, which makes one.

    Args:
        model: the model.
        settings: what all its jobs share.
        tasks: with their prompts.
        sizes: of the controls.
        name: of the model.
        call: the call that made the study, which the report shows.
    """

    def __init__(
        self,
        model: HookedModel,
        settings: StudySettings,
        tasks: Sequence[StudyTask],
        sizes: ControlSizes,
        *,
        name: str,
        call: str,
    ):
        self._model, self._settings, self._tasks, self._sizes = model, settings, list(tasks), sizes
        self.name, self.call = name, call

    def __repr__(self) -> str:
        n_prompts = sum(len(task.prompts) for task in self._tasks)
        return f"Study({self.name!r}, tasks={self.tasks}, {n_prompts} prompts)"

    def _repr_html_(self) -> str:
        return study_card(self.name, self.call, self._tasks, self._settings.folder, vars(self))

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""
        return [task.name for task in self._tasks]

    @property
    def results(self) -> list[Results]:
        """The results of every prompt, in the order of tasks and prompts."""
        return [part.results for part in self._parts]

    def regime(self) -> pd.DataFrame:
        """Whether the experiment of each task is in the paper's regime; see `regime`."""
        return regime(self.results)

    def controls(self) -> dict[str, list[ControlResults]]:
        """The controls of every prompt, by task; knock-outs and sweeps, which take longest, of first prompts only."""
        return self._controls

    def peaks(self) -> pd.DataFrame:
        """The accumulation tokens under every control prompt; see `control_peaks`. It runs the controls."""
        return pd.concat([control.peaks for control in chain(*self._controls.values())], ignore_index=True)

    def verdicts(self) -> pd.DataFrame:
        """The claims judged on each task; see `verdicts`. It runs the controls."""
        return self._verdicts

    def plan(
        self, *, minutes: float | None = None, costs: Costs | None = None, n_workers: int | None = None
    ) -> StudyPlan:
        """What the study generates and reads, and about how long it takes; finished parts are counted too.

        Args:
            minutes: shrink the sizes of the controls (`.sizes` of the plan) until the study takes at most this time.
            costs: of the model; None: a few texts are generated and read to measure them.
            n_workers: that share the jobs; None: those of the engine.

        Raises:
            DPCInterpError: not even controls of one problem fit into `minutes`.

        Example:
            >>> import dpc_interp as dpc
            >>> made = dpc.study(model, "story", prompts[0], n=4, n_validation=4, progress=False)
            >>> plan = made.plan(costs=dpc.Costs(prefill=1e-4, decode=1e-3, read=1e-4))
            >>> plan.parts.set_index("part").loc["analysis", "passes"]
            np.int64(8)
        """
        n_workers = n_workers or self._settings.run.count_workers(str(self._model.cfg.device))
        return plan_study(
            self._model, self._settings, self._tasks, self._sizes, costs=costs, n_workers=n_workers, minutes=minutes
        )

    def ablation(self, grid: Mapping[str, Sequence[Any]], **keywords: Any) -> pd.DataFrame:
        """`ablate` on the first prompt of each task.

        Args:
            grid: field of `Options` -> its values.
            keywords: others of `ablate`, such as `methods`.
        """
        run, options = self._settings.run_in("ablation"), self._settings.options
        rows = []
        for task in self._tasks:
            sample = ProblemSample(validation={task.name: task.validation})
            settings = {"grid": grid, "sample": sample, "options": options, "run": run, **keywords}
            rows.append(ablate(self._model, list(task.test), task.prompts[0], **settings))
        return pd.concat(rows, ignore_index=True)

    def instances(self) -> pd.DataFrame:
        """What happened to each instance under each prompt; see `instances_table`."""
        return instances_table(self.results)

    def case(self, instance: str, task: str | None = None, prompt: str | None = None) -> Case:
        """One instance with its calibrated trigger, for `view`; `view(study)` lists all of them.

        Args:
            instance: id of a test problem.
            task: its task; None: the first one that has the instance.
            prompt: name of the prompt; None: the first one of the task.

        Raises:
            UnknownNameError: no such instance was analysed.
        """
        part, run = find_run(self._parts, instance, task, prompt)
        return case(self._model, run, part.prompt, rule=part.results.rule, options=part.results.options)

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
        with plots.style_context():
            return FIGURES[name](self._first_parts[task or self.tasks[0]], self._model).figure

    def figures(self, folder: str | Path) -> Path:
        """Write fig1 to fig7 of the first prompt of each task, tab1 and tab2, and README.md, which lists them.

        Args:
            folder: of the files; figures of further tasks are written into subfolders.

        Returns:
            The path of the page.
        """
        out = Path(folder)
        jobs = [DrawFigures(self._first_parts[task], out / task if i else out) for i, task in enumerate(self.tasks)]
        captions = dict(zip(self.tasks, self._run(jobs, "draw", may_leave_machine=False), strict=True))
        return write_figure_page(self.name, self._tasks, self._parts, captions, out)

    def control_figures(self, folder: str | Path) -> Path:
        """Run the controls; write fig8 to fig11, tab3 to tab6, regime, verdicts, and CONTROLS.md, which lists them.

        Args:
            folder: of the files; figures of further tasks are written into subfolders.

        Returns:
            The path of the page.
        """
        out = Path(folder)
        page = write_controls(self.name, self._tasks, self._controls, self._measured, out)
        write_verdicts(self._verdicts, self._controls, self.peaks(), out)
        return page

    def report(self, file: str | Path) -> Path:
        """Write the report: what was run, the regime, verdicts, tables and every figure. It runs the controls.

        Args:
            file: path of the report, one HTML file that needs no other and makes no request.

        Returns:
            The path.
        """
        parts = [control.evaluated for control in chain(*self._controls.values())]
        first = {part.task: part for part in reversed(parts)}
        figures = {task: list_figures(first[task], self._model, m.drawings) for task, m in self._measured.items()}
        cases = {
            task: partial(self.case, name, task, part.prompt.name)
            for task, part in first.items()
            if (name := typical_instance(part))
        }
        return write_report(self.name, self.call, self._tasks, parts, figures, cases, self._verdicts, Path(file))

    @cached_property
    def _parts(self) -> list[EvaluatedPrompt]:
        """Every prompt evaluated, in the order of tasks and prompts."""
        jobs = [
            EvaluatePrompt(self._settings, task, prompt, with_shared=not k)
            for task in self._tasks
            for k, prompt in enumerate(task.prompts)
        ]
        order = sorted(range(len(jobs)), key=lambda j: not jobs[j].with_shared)  # the longest jobs first
        parts = dict(zip(order, self._run([jobs[j] for j in order], "evaluate"), strict=True))
        first = {job.task.name: parts[j] for j, job in enumerate(jobs) if job.with_shared}
        return [add_shared_answers(parts[j], first[job.task.name]) for j, job in enumerate(jobs)]

    @property
    def _first_parts(self) -> dict[str, EvaluatedPrompt]:
        """The first evaluated prompt of each task."""
        return {part.task: part for part in reversed(self._parts)}

    @cached_property
    def _controls(self) -> dict[str, list[ControlResults]]:
        # workers read evaluations from the folder; without one, and in this process, they are at hand
        at_hand = self._settings.run.engine == "local" or self._settings.folder is None
        parts = self._parts if at_hand else []
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
        by_task = {name: [control for control in controls if control.evaluated.task == name] for name in self.tasks}
        return {name: [control.with_shared_answers(same[0]) for control in same] for name, same in by_task.items()}

    @cached_property
    def _measured(self) -> dict[str, TaskControls]:
        """What the controls of each task show."""
        return {task: measure_task(controls) for task, controls in self._controls.items()}

    @cached_property
    def _verdicts(self) -> pd.DataFrame:
        results = [control.evaluated.results for control in chain(*self._controls.values())]
        return verdicts(results, model=self.name, controls=self.peaks())

    def _run(self, jobs: Sequence[Job[Result]], desc: str, *, may_leave_machine: bool = True) -> list[Result]:
        """The results of independent jobs, in their order; jobs that write files may not run on other machines."""
        run = self._settings.run
        bar = partial(tqdm, desc=desc, unit="job", total=len(jobs), disable=not run.progress)
        if run.engine == "local" or (run.engine == "ray" and not may_leave_machine):
            return [job(self._model) for job in bar(jobs)]
        with run.open_engine() as engine:
            results = {result.index: result.value for result in bar(engine.map(self._model, jobs))}
        return [results[index] for index in range(len(jobs))]
