"""Tables of triggers as people read them: numbers with intervals, percent and points."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.claims.triggers import OUTCOMES
from dpc_interp.evaluation.tables import percent


def regression_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Format `trigger_regression` as a table.

    Args:
        frame: frame of `trigger_regression`, of one or several tasks.

    Returns:
        One row per task, model and term; every cell is finished text or a count.
    """
    cells = [
        {
            "task": row["task"],
            "model": row["model"],
            "term": row["term"],
            "log-odds a standard deviation [95%]": f"{row['coefficient']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            "p": f"{row['p']:.2g}",
            "n": row["n"],
            "wrong": row["n_wrong"],
            "fit": row["estimator"] or row["reason"],
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(cells)


def triggers_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Format `compare_triggers` as a table.

    Args:
        frame: frame of `compare_triggers`, of one or several tasks and rates.

    Returns:
        One row per task, rate and trigger; scores against 'PT was wrong' are in the columns `wrong`, those against
        'corruption fixes it' in the columns `fixed`. Every cell is finished text or a count, – where a value is NaN.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> test, validation = (dpc.load_problems("story", split, n=12) for split in ("test", "validation"))
        >>> results = dpc.evaluate(model, test, prompt, ["always"], validation=validation, progress=False)
        >>> table = dpc.triggers_table(dpc.compare_triggers(results, rates=[0.5], triggers=["late_share"]))
        >>> table[["trigger", "target %"]].to_numpy().tolist()
        [['late_share', '50.0'], ['random', '50.0'], ['oracle', '50.0']]
    """
    cells = []
    for _, rows in frame.groupby(["task", "rate", "trigger"], sort=False):
        row = rows.iloc[0]
        by_outcome = {
            short: rows[rows["outcome"] == name].iloc[0]
            for short, name in zip(("wrong", "fixed"), OUTCOMES, strict=True)
        }
        cell = {"task": row["task"], "target %": percent(row["rate"]), "trigger": row["trigger"]}
        # one loop a column, so that both outcomes of a score are next to each other
        for short, scores in by_outcome.items():
            cell[f"AUROC {short} [95%]"] = _score(scores, "auroc")
        for short, scores in by_outcome.items():
            cell[f"AP {short} [95%]"] = _score(scores, "average_precision")
        cell["fires %"] = _percent(row["firing_rate"])
        for short, scores in by_outcome.items():
            cell[f"hit rate {short} %"] = _percent(scores["hit_rate"])
        for short, scores in by_outcome.items():
            cell[f"precision {short} %"] = _percent(scores["precision"])
        cell["accuracy % [95%]"] = _percent(*row[["accuracy", "accuracy_low", "accuracy_high"]])
        for name, column in (("pt", "difference"), ("random", "above_random")):
            cell[f"minus {name}, points [95%]"] = _percent(*row[[column, f"{column}_low", f"{column}_high"]])
        cells.append(cell | {"n": row["n"], "prompts": row["n_prompts"]})
    return pd.DataFrame(cells)


def _percent(share: float, *interval: float) -> str:
    """`percent`, or – where the share is NaN."""
    return "–" if np.isnan(share) else percent(share, *interval)


def _score(row: pd.Series, name: str) -> str:
    """`0.61 [0.55, 0.67]`, or – where the score is NaN."""
    value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
    return "–" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
