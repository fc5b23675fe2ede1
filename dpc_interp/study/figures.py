"""The job that evaluates a prompt and draws its figures, and the page that lists figures and tables of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.study.accuracy_tables import write_tables
from dpc_interp.study.evaluated import EvaluatedPrompt, StudySettings, StudyTask, sizes_of
from dpc_interp.study.paper_figures import draw_figures


@dataclass(frozen=True)
class EvaluateAndDraw:
    """The job that evaluates one prompt and draws its figures.

    Attributes:
        settings: settings of the study.
        task: of the study.
        prompt: one of its prompts.
        with_shared: also evaluate the methods whose answers are the same for all prompts of the task.
        folder: folder of the figures; None: draw none.
    """

    settings: StudySettings
    task: StudyTask
    prompt: SoftPrompt
    with_shared: bool
    folder: Path | None

    def __call__(self) -> tuple[EvaluatedPrompt, list[str]]:
        """The evaluated prompt, and a caption for each figure."""
        part = self.settings.evaluate(self.task, self.prompt, with_shared=self.with_shared)
        return part, [] if self.folder is None else draw_figures(part, self.folder)


def write_page(
    title: str, tasks: Sequence[StudyTask], parts: list[EvaluatedPrompt], captions: Mapping[str, list[str]], out: Path
) -> Path:
    """Write tab1, tab2 and README.md, which lists tables and figures.

    Args:
        title: name of the model.
        tasks: of the study.
        parts: every evaluated prompt, with every method among its results.
        captions: of the figures of each task.
        out: folder of the figures of the first task.

    Returns:
        The path of the page.
    """
    names = ", ".join(sorted({prompt.name.rpartition("/")[2] for task in tasks for prompt in task.prompts}))
    n, n_validation = sizes_of(tasks)
    introduction = (
        f"# Figures of {title}\n\n"
        f"{n} test problems a task, {n_validation} validation problems for the thresholds, prompts {names}. Figures "
        "show the first prompt, tables pool all; intervals are 95%, over problems."
    )
    text = [introduction, write_tables(parts, out)]
    for task, lines in captions.items():
        text += [f"## Figures of {task}", "\n".join(f"- {line}" for line in lines)]
    page = out / "README.md"
    page.write_text("\n\n".join(text) + "\n")
    return page
