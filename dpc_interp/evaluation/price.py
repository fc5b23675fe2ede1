"""What each method costs beside plain prompt tuning (METHOD 7.6): seconds of every stage, and tokens written.

    seconds(m) = generation + analysis, where m fires at all + corruption * share of the stage's answers that m uses
    ratio(m) = seconds(m) / seconds(pt)

An answer corrupted in one way is written once and used by every method that fires there, so a method is charged its
share of that stage. Calibration is done once a prompt, not once a problem, and is left out.
"""

from __future__ import annotations

import re

import pandas as pd

from dpc_interp.evaluation.compare import METHODS

COLUMNS = ["method", "generation", "analysis", "corruption", "seconds", "tokens", "ratio"]


def price(timings: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """One row a method.

    Args:
        timings: `Results.timings`, of a run without `draft_rationales`.
        instances: `Results.instances`.

    Returns:
        `method`; `generation`, `analysis`, `corruption` and their sum, `seconds`; `tokens` written, those of prompted
        answers that were replaced included; `ratio` to `pt`'s seconds. NaN: a stage's seconds are not known.
    """
    by_method = {str(method): rows for method, rows in instances.groupby("method", sort=False)}
    pt = by_method["pt"]
    table: list[tuple[object, ...]] = []
    for method, answers in by_method.items():
        what = METHODS[method][1] if method in METHODS else method
        generation = _seconds(timings, "base" if method == "base" else "pt")
        analysis = corruption = 0.0
        fired = answers["fired"].to_numpy(bool)
        if method not in METHODS or METHODS[method][0] != "never":
            analysis = _seconds(timings, "analysis") if method in METHODS else 0.0
            users = [other for name, other in by_method.items() if name == method or _corrupts(name) == what]
            answered = pd.concat([other.loc[other["fired"].astype(bool), "instance"] for other in users]).nunique()
            if answered:
                corruption = _seconds(timings, f"corrupted-{what.replace(' ', '-')}") * fired.sum() / answered
        tokens = answers["n_tokens"].sum() if method == "base" else pt["n_tokens"].sum()
        tokens += answers["n_tokens"].to_numpy()[fired].sum()
        table.append((method, generation, analysis, corruption, generation + analysis + corruption, int(tokens)))
    priced = pd.DataFrame(table, columns=COLUMNS[:-1])
    return priced.assign(ratio=priced["seconds"] / priced.loc[priced["method"] == "pt", "seconds"].iloc[0])


def _corrupts(method: str) -> str | None:
    fires, what = METHODS.get(method, ("never", ""))
    return None if fires == "never" else what


def _seconds(timings: pd.DataFrame, stage: str) -> float:
    """Of the stages of this name, a hash behind it and perhaps a frame's name; NaN: there is none."""
    named = timings["stage"].astype(str).str.fullmatch(rf"{re.escape(stage)}-[0-9a-f]{{16}}(-\w+)?")
    return float(timings.loc[named, "seconds"].sum()) if named.any() else float("nan")
