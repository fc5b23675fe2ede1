"""Is the experiment in the paper's regime? (docs/method.md, section 8.1)

The paper's base model reasons when it is asked to, and the prompt changes it little on average, because it helps some
instances and harms others. C4 and C5 are about the harmed ones. C2 to C5 are about what is written under the influence
of the prompt: where nothing changes if it is cut off from the prompt, the prompt acts through the question alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpc_interp.analysis.schema import conform
from dpc_interp.analysis.trigger import TriggerRule
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.evaluation.tables import percent
from dpc_interp.stats.changes import gain
from dpc_interp.stats.paired import bootstrap_mean

MIN_HARMED = 30
"""Minimum harmed answers over all prompts; below it C4 and C5 are not testable."""
MIN_LATE_TEXTS = 0.2
"""Minimum share of texts that change when they are cut off from the prompt; below it C2 to C5 are not testable."""
MAX_P = 0.05
"""Largest p of a rule that counts as a trigger; above it chance calibrates one as good."""
MEASURED = ("bare", "instruct", "pt", "cut_off")
UNKNOWN = (np.nan, np.nan, np.nan)


def regime(results: Sequence[Results]) -> pd.DataFrame:
    """Describe the experiment of each task: accuracies, helped and harmed answers, late influence of the prompt.

    Args:
        results: results of any tasks, those of one task on the same problems; with the methods `bare`, `instruct` and
            `cut_off`, or numbers are NaN.

    Returns:
        The frame `regime` of `schema.py`, one row per task.

    Example:
        >>> import dpc_interp as dpc
        >>> model, problems = dpc.load_model("reasoner"), dpc.load_problems("story", n=4)
        >>> prompt, rule = dpc.load_prompt("reasoner/story"), dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, problems, prompt, ["instruct", "cut_off"], rule=rule, progress=False)
        >>> dpc.regime([results])["task"].tolist()
        ['story']
    """
    instances = pd.concat([result.instances for result in results], ignore_index=True)
    rows = [_describe(str(task), frame) for task, frame in instances.groupby("task", sort=False)]
    return conform(pd.DataFrame(rows), "regime")


def _describe(task: str, instances: pd.DataFrame) -> dict[str, object]:
    measured = instances[instances["method"].isin(MEASURED)].astype({"correct": float})
    table = measured.pivot(index=["method", "instance"], columns="prompt", values="correct")
    correct = {str(method): table.loc[method] for method in table.index.unique("method")}
    pt = correct["pt"]
    row: dict[str, object] = {"task": task, "n": len(pt), "n_prompts": pt.shape[1]}
    for method in ("bare", "instruct", "pt"):
        row |= _named(method, _share(correct[method]) if method in correct else UNKNOWN)
    helped, harmed = UNKNOWN, UNKNOWN
    row |= {"n_helped": 0, "n_harmed": 0}
    if "instruct" in correct:
        better, worse = ((correct["instruct"] < pt), (correct["instruct"] > pt))
        helped, harmed = _share(better.astype(float)), _share(worse.astype(float))
        row |= {"n_helped": int(better.to_numpy().sum()), "n_harmed": int(worse.to_numpy().sum())}
    row |= _named("helped", helped) | _named("harmed", harmed)
    late_texts, late_gain = UNKNOWN, UNKNOWN
    if "cut_off" in correct:
        cut_off = instances[instances["method"] == "cut_off"].astype({"changed": float})
        late_texts = _share(cut_off.pivot_table("changed", "instance", "prompt"))
        estimate = gain((correct["cut_off"] - pt).dropna().to_numpy())
        late_gain = (estimate.value, estimate.low, estimate.high)
    return row | _named("late_texts", late_texts) | _named("late_gain", late_gain)


def _share(values: pd.DataFrame) -> tuple[float, float, float]:
    """The mean over problems (rows) and prompts with its interval over problems."""
    table = values.to_numpy(float)
    problems = np.repeat(np.arange(len(table)), table.shape[1])
    return float(table.mean()), *bootstrap_mean(table.ravel(), problems)


def _named(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def obstacles(row: pd.Series) -> dict[str, str]:
    """What keeps an experiment from speaking of some claims.

    Args:
        row: of the frame of `regime`.

    Returns:
        `late` and `harmed`, what a claim needs -> why the experiment lacks it, or nothing.
    """
    late, harmed = "", ""
    if not np.isfinite(row["late_texts"]):
        late = "cut_off was not evaluated"
    elif row["late_texts"] < MIN_LATE_TEXTS:
        late = f"cutting the text off from the prompt changes {100 * row['late_texts']:.1f}% of texts"
    if not np.isfinite(row["harmed"]):
        harmed = "instruct was not evaluated"
    elif row["n_harmed"] < MIN_HARMED:
        harmed = f"{row['n_harmed']} harmed answers"
    return {"late": late, "harmed": harmed}


def trigger_obstacle(rules: Sequence[TriggerRule]) -> str:
    """Why no prompt of a task has a trigger, or nothing; a rule without p, such as a given one, counts as one.

    With several prompts the smallest p is that of the best of several chances, so it is multiplied by their number.

    Args:
        rules: of the prompts of one task.
    """
    if any(np.isnan(rule.p) or rule.p * len(rules) <= MAX_P for rule in rules):
        return ""
    best = min(rules, key=lambda rule: rule.p)
    return f"no trigger: {100 * best.p:.0f}% of shuffled outcomes reach the best rule's J ({best.youden:.2f})"


def start_obstacle(controls: pd.DataFrame | None, task: str) -> str:
    """Why no prompt of a task can be compared with what its tuning started from, or nothing.

    Args:
        controls: of `control_peaks`; None: they were not measured.
        task: name of the task.
    """
    if controls is None or ((controls["task"] == task) & (controls["condition"] == "untrained")).any():
        return ""
    return "no prompt records what its tuning started from"


def regime_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The regime as a table in percent, whose cells are finished text or counts.

    Args:
        frame: of `regime`.
    """
    rows = []
    for _, row in frame.iterrows():
        cells = {
            name: percent(row[column], row[f"{column}_low"], row[f"{column}_high"])
            if np.isfinite(row[column])
            else "not measured"
            for name, column in (
                ("bare %", "bare"),
                ("instruct %", "instruct"),
                ("pt %", "pt"),
                ("helped %", "helped"),
                ("harmed %", "harmed"),
                ("texts that the cut-off changes %", "late_texts"),
                ("accuracy after the cut-off minus pt, points", "late_gain"),
            )
        }
        reasons = "; ".join(filter(None, obstacles(row).values()))
        counts = {"n": row["n"], "prompts": row["n_prompts"], "outside the regime": reasons or "–"}
        rows.append({"task": row["task"], **cells, **counts})
    return pd.DataFrame(rows)
