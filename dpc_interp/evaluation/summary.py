"""Certainty: the intervals and paired tests of an evaluation's tables.

Accuracies carry Wilson intervals where each row is another problem. Where several tuned prompts answer the same
problems, their interval comes from a seeded bootstrap that resamples problems with all their rows: it is about these
prompts. That of a paired difference is the one of `verdicts`, over problems and tuning seeds (`stats/changes.py`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.stats.changes import gain
from dpc_interp.stats.paired import bootstrap_mean, exact_mcnemar, wilson


def summarise(instances: pd.DataFrame, reference: str = "pt", seed: int = 0) -> pd.DataFrame:
    """Accuracy of each method, paired with `reference` on the same problems and prompts.

    Args:
        instances: rows of one task: prompt, method, instance, correct, fired, n_tokens.

    Returns:
        One row per method: n (rows), n_prompts, accuracy, low, high, difference (to `reference`), difference_low,
        difference_high, p_mcnemar (NaN where several prompts share problems, since their pairs are not independent),
        fixed, broken, both_right, both_wrong, firing_rate, tokens (generated, mean).
    """
    keys = ["prompt", "instance"]
    base = instances[instances["method"] == reference].set_index(keys)["correct"]
    rows = []
    for method, frame in instances.groupby("method", sort=False):
        now = frame.set_index(keys)["correct"].to_numpy(bool)
        before = base.loc[frame.set_index(keys).index].to_numpy(bool)
        problems = frame["instance"].to_numpy()
        n_prompts = frame["prompt"].nunique()
        low, high = (
            wilson(int(now.sum()), len(now)) if n_prompts == 1 else bootstrap_mean(now.astype(float), problems, seed)
        )
        difference = (0.0, 0.0) if method == reference else _difference_interval(frame, now, before)
        rows.append(
            {
                "method": method,
                "n": len(now),
                "n_prompts": n_prompts,
                "accuracy": now.mean(),
                "low": low,
                "high": high,
                "difference": now.mean() - before.mean(),
                "difference_low": difference[0],
                "difference_high": difference[1],
                "p_mcnemar": exact_mcnemar(before, now) if n_prompts == 1 else float("nan"),
                "fixed": int((now & ~before).sum()),
                "broken": int((~now & before).sum()),
                "both_right": int((now & before).sum()),
                "both_wrong": int((~now & ~before).sum()),
                "firing_rate": frame["fired"].mean(),
                "tokens": frame["n_tokens"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _difference_interval(frame: pd.DataFrame, now: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """The interval of the mean change, over the problems that every prompt answered; NaN if there is none."""
    changes = frame.assign(change=now.astype(float) - before).pivot_table("change", "instance", "prompt").dropna()
    if changes.empty:
        return float("nan"), float("nan")
    estimate = gain(changes.to_numpy())
    return estimate.low, estimate.high
