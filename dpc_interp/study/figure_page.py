"""The page that lists the figures of a study with their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dpc_interp.study.accuracy_tables import write_tables
from dpc_interp.study.evaluated import EvaluatedPrompt, StudyTask, sizes_of


def write_figure_page(
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
        "show the first prompt, tables pool all; intervals are 95%, over problems, those of differences from pt over "
        "problems and tuning seeds."
    )
    text = [introduction, write_tables(parts, out)]
    for task, lines in captions.items():
        text += [f"## Figures of {task}", "\n".join(f"- {line}" for line in lines)]
    page = out / "README.md"
    page.write_text("\n\n".join(text) + "\n")
    return page
