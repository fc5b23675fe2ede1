"""tab1_accuracy, tab2_ablation and the claims by prompt: what pools all studies of a model."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dpc_interp import plots
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.evaluation.statistics import summarise
from dpc_interp.evaluation.tables import accuracy_table, markdown
from dpc_interp.evaluation.verdicts import verdicts
from dpc_interp.output import save_figure
from dpc_interp.study import Study

ABLATION = ("pt", "dpc", "always", "random", "dpc, random token", "dpc, mask only", "dpc, gamma only", "oracle")


def tables(studies: list[Study], folder: Path) -> str:
    """tab1_accuracy, tab2_ablation and the claims; what to read under the figures."""
    instances = pd.concat([s.results.instances for s in studies])
    pooled = pd.concat([_pooled(studies, task) for task in dict.fromkeys(instances["task"])], ignore_index=True)
    ablations = [m for m in METHODS if m not in ("pt", "base", "random", "always", "dpc", "oracle")]
    main = pooled[~pooled["method"].isin(ablations)]
    ablation = pooled[pooled["method"].isin(ABLATION)]
    text = []
    for name, frame, title in (
        ("tab1_accuracy", main, "Accuracy of each method"),
        ("tab2_ablation", ablation, "What makes up dpc: trigger, location, Gamma"),
    ):
        with plots.style_context():
            figure, ax = plt.subplots(
                figsize=(plots.COLUMN_WIDTH, 0.9 + 0.42 * frame["method"].nunique()), layout="constrained"
            )
            plots.plot_accuracy(frame, ax=ax)
            save_figure(figure, folder / name, frame.round(6))
        text += [f"## {name}: {title}", markdown(accuracy_table(frame)), ""]
    by_prompt = [verdicts([s.results], model=s.model).assign(prompt=s.prompt) for s in studies]
    found = pd.concat(by_prompt, ignore_index=True)
    found.round(6).to_csv(folder / "claims.csv", index=False)
    text += ["## The paper's claims, by task and prompt", _claims_text(found)]
    return "\n\n".join(text)


def _pooled(studies: list[Study], task: str) -> pd.DataFrame:
    """One task's methods over all its prompts, with McNemar's p of each prompt in words."""
    of_task = [s for s in studies if s.task == task]
    pooled = summarise(pd.concat([s.results.instances for s in of_task]))
    by_prompt = pd.concat([s.results.summary for s in of_task]).groupby("method", sort=False)["p_mcnemar"]
    words = by_prompt.agg(lambda ps: ", ".join(f"{p:.2g}" for p in ps))
    pooled.insert(0, "task", task)
    return pooled.assign(p_by_prompt=pooled["method"].map(words)).drop(columns="p_mcnemar")


def _claims_text(found: pd.DataFrame) -> str:
    cells = [f"{row.effect:.2f} [{row.low:.2f}, {row.high:.2f}] **{row.verdict}**" for row in found.itertuples()]
    table = found.assign(cell=cells).pivot_table(
        index=["task", "prompt"], columns="claim", values="cell", aggfunc="first", sort=False
    )
    return markdown(table.reset_index())
