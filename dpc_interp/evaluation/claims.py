"""The paper's claims C1 to C5 on one evaluated prompt: an effect, its 95% interval, and what follows by a fixed rule.

| claim | effect | null |
| --- | --- | --- |
| C1 | mean peak ratio of the shallow layers | 2: the peak draws twice the mean |
| C2 | Hedges' g of the deep late prompt flow, wrong over right | 0 |
| C3 | Spearman correlation of peak ratio and late share | 0 |
| C4 | AUROC of the late share against 'PT was wrong' | 0.5 |
| C5 | accuracy of dpc minus that of pt | 0 |

A claim holds where the whole interval lies above its null, fails where it lies below or on it, and is undecided
otherwise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from dpc_interp.evaluation.intervals import hedges_g, mean_interval
from dpc_interp.evaluation.methods import Results
from dpc_interp.evaluation.statistics import ranking

Effect = tuple[float, float, float]
NULLS = {"C1": 2.0, "C2": 0.0, "C3": 0.0, "C4": 0.5, "C5": 0.0}


def claims(results: Results) -> pd.DataFrame:
    """One row a claim: task, prompt, claim, effect, low, high, null, verdict, n."""
    stats = results.statistics
    wrong = ~stats["correct"].to_numpy(bool)
    flow = stats[["deep_flow"]].to_numpy(float)
    score = ranking(wrong, stats["late_share"].to_numpy(float))
    dpc = results.summary.loc[results.summary["method"] == "dpc"].iloc[0]
    effects: dict[str, Effect] = {
        "C1": _first(mean_interval(stats[["peak_ratio"]].to_numpy(float))),
        "C2": _first(hedges_g(flow[wrong], flow[~wrong])),
        "C3": _spearman(stats["peak_ratio"].to_numpy(float), stats["late_share"].to_numpy(float)),
        "C4": (score["auroc"], score["auroc_low"], score["auroc_high"]),
        "C5": (dpc["difference"], dpc["difference_low"], dpc["difference_high"]),
    }
    rows = [
        (claim, *effect, NULLS[claim], verdict(effect, NULLS[claim]), len(stats)) for claim, effect in effects.items()
    ]
    frame = pd.DataFrame(rows, columns=["claim", "effect", "low", "high", "null", "verdict", "n"])
    first = results.instances.iloc[0]
    frame.insert(0, "task", first["task"])
    frame.insert(1, "prompt", first["prompt"])
    return frame


def verdict(effect: Effect, null: float) -> str:
    """`holds`, `fails` or `undecided`."""
    _, low, high = effect
    if low > null:
        return "holds"
    return "fails" if high <= null else "undecided"


def _first(bounds: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Effect:
    value, low, high = (float(bound[0]) for bound in bounds)
    return value, low, high


def _spearman(first: np.ndarray, second: np.ndarray) -> Effect:
    """Rank correlation with the interval of its Fisher transform."""
    found = scipy_stats.pearsonr(scipy_stats.rankdata(first), scipy_stats.rankdata(second))
    interval = found.confidence_interval(0.95)
    return float(found.statistic), float(interval.low), float(interval.high)
