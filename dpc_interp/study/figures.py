"""The paper's figures and tables: `python -m dpc_interp.study.figures --model reasoner --out figures/reasoner`.

Every task is evaluated with each of its prompts, one process per core. The figures of the first task are written to
`--out` itself, those of the others to a subfolder of their name. Figures show the first prompt; tables pool all
prompts. Finished stages are stored in `runs/`, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpc_interp.host.processes import map_processes
from dpc_interp.study.accuracy_tables import write_tables
from dpc_interp.study.paper_figures import draw_figures
from dpc_interp.study.study import Study, StudySettings, add_shared_answers, build_parser, prompts_of, read_settings


@dataclass(frozen=True)
class EvaluateAndDraw:
    """The job that evaluates one prompt and draws its figures.

    Attributes:
        settings: settings of the study.
        task: name of the task.
        prompt: name of a bundled prompt of the task.
        folder: folder of the figures; None: draw none, and leave out the bare model, whose answers are the same for all
            prompts of a task.
    """

    settings: StudySettings
    task: str
    prompt: str
    folder: Path | None

    def __call__(self) -> tuple[Study, list[str]]:
        """The study, and a caption for each figure."""
        study = self.settings.evaluate(self.task, self.prompt, with_shared=self.folder is not None)
        return study, [] if self.folder is None else draw_figures(study, self.folder)


def run_studies(
    settings: StudySettings, prompts: Mapping[str, Sequence[str]], out: Path
) -> tuple[list[Study], dict[str, list[str]]]:
    """Evaluate every prompt, and draw the figures of the first prompt of each task.

    Args:
        settings: settings of the studies.
        prompts: names of bundled prompts, by task.
        out: folder of the figures of the first task; those of the others are drawn in subfolders.

    Returns:
        The studies, in the order of the prompts; and the captions of each task.
    """
    jobs = [
        EvaluateAndDraw(settings, task, name, None if k else (out / task if i else out))
        for i, (task, names) in enumerate(prompts.items())
        for k, name in enumerate(names)
    ]
    # jobs that draw take longest: start them first, so that none of them runs alone at the end
    order = sorted(range(len(jobs)), key=lambda j: (jobs[j].folder is None, -j))
    results = dict(zip(order, map_processes([jobs[j] for j in order], "evaluate and draw"), strict=True))
    studies, captions, first = [], {}, {}
    for j, job in enumerate(jobs):
        study, job_captions = results[j]
        if job.folder is not None:
            captions[job.task], first[job.task] = job_captions, study
        studies.append(add_shared_answers(study, first[job.task]))
    return studies, captions


def main() -> None:
    """Draw every figure and table of a model and write them with their captions."""
    args = build_parser(main.__doc__).parse_args()
    start = time.perf_counter()
    prompts = prompts_of(args.model, args.tasks, args.seeds)
    studies, captions = run_studies(read_settings(args), prompts, args.out)
    text = [_introduction(args, prompts), write_tables(studies, args.out)]
    for task, lines in captions.items():
        text += [f"## Figures of {task}", "\n".join(f"- {line}" for line in lines)]
    (args.out / "README.md").write_text("\n\n".join(text) + "\n")
    print(f"wrote {args.out} in {time.perf_counter() - start:.0f} s")


def _introduction(args: argparse.Namespace, prompts: Mapping[str, Sequence[str]]) -> str:
    names = ", ".join(sorted({name.rpartition("/")[2] for task_prompts in prompts.values() for name in task_prompts}))
    return (
        f"# Figures of {args.model}\n\n"
        f"Written by `make figures`: {args.n} test problems a task (seed 0), {args.n_validation} validation problems "
        f"for the thresholds, prompts {names}. Figures show the first prompt, tables pool all; intervals are 95%, over "
        "problems."
    )


if __name__ == "__main__":
    main()
