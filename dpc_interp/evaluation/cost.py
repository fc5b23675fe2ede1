"""What each method costs relative to prompt tuning: seconds of every stage and generated tokens (docs/method.md, 7.6).

    seconds(m) = generation + analysis, where m fires at all + corruption * share of the stage's answers that m uses
    ratio(m) = seconds(m) / seconds(pt)

An answer under one corruption is generated once and used by every method that fires there, so a method is charged its
share of that stage. Calibration is done once a prompt, not once a problem, and is left out.
"""

from __future__ import annotations

import re

import pandas as pd

from dpc_interp.evaluation.methods import METHODS, TRIGGERED

STAGES = {
    "bare": "bare",
    "instruct": "instruct",
    "random_prompt": "corrupted-random_prompt",
    "cut_off": "corrupted-cut_off",
}
"""Methods that answer every problem in a stage of their own -> its name."""
COLUMNS = ["method", "generation", "analysis", "corruption", "seconds", "tokens", "ratio"]


def method_costs(timings: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """The cost of each method, one row per method.

    Args:
        timings: `Results.timings`, of a run without `speculate_from_gold`.
        instances: `Results.instances`.

    Returns:
        `method`; seconds of `generation`, `analysis` and `corruption`, and their sum `seconds`; `tokens` generated,
        including prompted answers that were replaced; `ratio` to the seconds of `pt`. NaN where the seconds of a stage
        are unknown.
    """
    by_method = {str(method): rows for method, rows in instances.groupby("method", sort=False)}
    pt = by_method["pt"]
    table: list[tuple[object, ...]] = []
    for method, answers in by_method.items():
        generation = _seconds(timings, STAGES.get(method, "pt"))
        analysis, corruption = _corruption_seconds(timings, method, by_method)
        tokens = answers["n_tokens"].sum() if method in STAGES else pt["n_tokens"].sum()
        tokens += answers["n_tokens"].to_numpy()[answers["fired"].to_numpy(bool)].sum()
        table.append((method, generation, analysis, corruption, generation + analysis + corruption, int(tokens)))
    costs = pd.DataFrame(table, columns=COLUMNS[:-1])
    return costs.assign(ratio=costs["seconds"] / costs.loc[costs["method"] == "pt", "seconds"].iloc[0])


def _corruption_seconds(timings: pd.DataFrame, method: str, by_method: dict[str, pd.DataFrame]) -> tuple[float, float]:
    """Seconds of the analysis, and the method's share of the seconds of its corruption."""
    if method in METHODS and method not in TRIGGERED:
        return 0.0, 0.0
    corrupts = TRIGGERED[method][1] if method in TRIGGERED else method
    analysis = _seconds(timings, "analysis") if method in METHODS else 0.0
    users = [rows for name, rows in by_method.items() if name == method or _corrupts(name) == corrupts]
    n_answers = pd.concat([rows.loc[rows["fired"].astype(bool), "instance"] for rows in users]).nunique()
    if not n_answers:
        return analysis, 0.0
    n_fired = by_method[method]["fired"].to_numpy(bool).sum()
    return analysis, _seconds(timings, f"corrupted-{corrupts.replace(' ', '-')}") * n_fired / n_answers


def _corrupts(method: str) -> str | None:
    return TRIGGERED[method][1] if method in TRIGGERED else None


def _seconds(timings: pd.DataFrame, stage: str) -> float:
    """Seconds of the stages of this name, which a hash and perhaps the name of a frame follow; NaN if there is none."""
    matches = timings["stage"].astype(str).str.fullmatch(rf"{re.escape(stage)}-[0-9a-f]{{16}}(-\w+)?")
    return float(timings.loc[matches, "seconds"].sum()) if matches.any() else float("nan")
