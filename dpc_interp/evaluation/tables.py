"""Tables as people read them: frames of shares -> percent with intervals -> Markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.evaluation.triggers import OUTCOMES


def markdown(frame: pd.DataFrame) -> str:
    """A frame of finished cells as a Markdown table, without its index."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def percent(share: float, low: float | None = None, high: float | None = None) -> str:
    """`52.0 [47.6, 56.3]`; signs are shown where the interval is of a difference."""
    if low is None or high is None:
        return _tenths(share)
    return f"{_tenths(share)} [{_tenths(low)}, {_tenths(high)}]"


def _tenths(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}"  # no -0.0


def accuracy_table(summary: pd.DataFrame) -> pd.DataFrame:
    """`summarise` rows of several tasks as cells: percent, points and counts."""
    cells = []
    for row in summary.to_dict("records"):
        cells.append(
            {
                "task": row["task"],
                "method": row["method"],
                "accuracy % [95%]": percent(row["accuracy"], row["low"], row["high"]),
                "minus pt, points [95%]": percent(row["difference"], row["difference_low"], row["difference_high"]),
                "McNemar p by prompt": row["p_by_prompt"],
                "fixed": row["fixed"],
                "broken": row["broken"],
                "both right": row["both_right"],
                "both wrong": row["both_wrong"],
                "fires %": percent(row["firing_rate"]),
                "tokens": f"{row['tokens']:.1f}",
                "n": row["n"],
                "prompts": row["n_prompts"],
            }
        )
    return pd.DataFrame(cells)


def variants_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`corruption_variants` rows as cells: points against pt and counts, a row a variant and method."""
    cells = [
        {
            "task": row["task"],
            "variant": row["variant"],
            "fires": row["method"],
            "minus pt, points [95%]": percent(row["difference"], row["difference_low"], row["difference_high"]),
            "McNemar p": f"{row['p_mcnemar']:.2g}",
            "fixed": row["fixed"],
            "broken": row["broken"],
            "fires %": percent(row["firing_rate"]),
            "n": row["n"],
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(cells)


def regression_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`trigger_regression` rows as cells: a row a task, model and term."""
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
    """`compare_triggers` rows, of several tasks or rates too, as cells: one row a trigger, percent and points."""
    cells = []
    for _, rows in frame.groupby(["task", "rate", "trigger"], sort=False):
        row = rows.iloc[0]
        by_outcome = {
            short: rows[rows["outcome"] == name].iloc[0]
            for short, name in zip(("wrong", "fixed"), OUTCOMES, strict=True)
        }
        cell = {"task": row["task"], "asked %": percent(row["rate"]), "trigger": row["trigger"]}
        for short, of in by_outcome.items():
            cell[f"AUROC {short} [95%]"] = _scored(of, "auroc")
        for short, of in by_outcome.items():
            cell[f"AP {short} [95%]"] = _scored(of, "average_precision")
        cell["fires %"] = _percent(row["firing_rate"])
        for short, of in by_outcome.items():
            cell[f"hit rate {short} %"] = _percent(of["hit_rate"])
        for short, of in by_outcome.items():
            cell[f"precision {short} %"] = _percent(of["precision"])
        cell["accuracy % [95%]"] = _percent(*row[["accuracy", "accuracy_low", "accuracy_high"]])
        for name, column in (("pt", "difference"), ("random", "above_random")):
            cell[f"minus {name}, points [95%]"] = _percent(*row[[column, f"{column}_low", f"{column}_high"]])
        cells.append(cell | {"n": row["n"], "prompts": row["n_prompts"]})
    return pd.DataFrame(cells)


def _percent(share: float, *interval: float) -> str:
    return "–" if np.isnan(share) else percent(share, *interval)


def _scored(row: pd.Series, name: str) -> str:
    value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
    return "–" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
