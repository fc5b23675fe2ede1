"""The tables that pool all studies of a model: tab1_accuracy and tab2_ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dpc_interp import plots
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.evaluation.methods import MAIN_METHODS
from dpc_interp.evaluation.summary import summarise
from dpc_interp.evaluation.tables import accuracy_table, markdown
from dpc_interp.study.evaluated import EvaluatedPrompt
from dpc_interp.study.output import save_figure, save_table

ABLATION = ("pt", "dpc", "always", "random", "dpc, random token", "dpc, mask only", "dpc, gamma only", "oracle")
"""Methods in tab2; without `always`, `random` and `oracle`, each changes one part of dpc."""


def write_tables(parts: Sequence[EvaluatedPrompt], folder: Path) -> str:
    """Write the tables of a study, and a figure of each accuracy table.

    Args:
        parts: every evaluated prompt, each with every method among its results.
        folder: folder of the tables.

    Returns:
        The tables as Markdown.
    """
    pooled = pool_prompts([part.results for part in parts])
    text = []
    for name, methods, title in (
        ("tab1_accuracy", MAIN_METHODS, "Accuracy of each method"),
        ("tab2_ablation", ABLATION, "What makes up dpc: trigger, location, Gamma"),
    ):
        frame = pooled[pooled["method"].isin(methods)]
        with plots.style_context():
            figsize = (plots.COLUMN_WIDTH, 0.9 + 0.42 * frame["method"].nunique())
            figure, ax = plt.subplots(figsize=figsize, layout="constrained")
            plots.plot_accuracy(frame, ax=ax)
            save_figure(figure, folder / name)
        save_table(frame, folder / name)
        text += [f"## {name}: {title}", markdown(accuracy_table(frame)), ""]
    return "\n\n".join(text)


def pool_prompts(results: Sequence[Results]) -> pd.DataFrame:
    """The methods of each task over all its prompts, with McNemar's p of each prompt as text.

    Args:
        results: of the prompts of any tasks.
    """
    tasks = dict.fromkeys(result.task for result in results)
    by_task = [[result for result in results if result.task == task] for task in tasks]
    return pd.concat([_pool_task(same) for same in by_task], ignore_index=True)


def _pool_task(results: Sequence[Results]) -> pd.DataFrame:
    pooled = summarise(pd.concat([result.instances for result in results]), seed=results[0].options.seed)
    by_method = pd.concat([result.summary for result in results]).groupby("method", sort=False)["p_mcnemar"]
    p_by_prompt = by_method.agg(lambda values: ", ".join(f"{p:.2g}" for p in values))
    pooled.insert(0, "task", results[0].task)
    # McNemar's test takes independent pairs; pooled over prompts, the pairs of one problem are not independent
    return pooled.assign(p_by_prompt=pooled["method"].map(p_by_prompt)).drop(columns="p_mcnemar")
