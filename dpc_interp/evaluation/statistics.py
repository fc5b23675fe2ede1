"""Certainty: the intervals and paired tests of an evaluation's tables.

Accuracies carry Wilson intervals where each row is another problem. Where several tuned prompts answer the same
problems, and for every paired difference, intervals come from a seeded bootstrap that resamples problems with all their
rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from dpc_interp.evaluation.intervals import LEVEL, percentile_interval, ranking_interval, resamples


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95% Wilson interval of a proportion."""
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def exact_mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test on paired booleans; 1 where no pair differs."""
    table = [[0, int((first & ~second).sum())], [int((~first & second).sum()), 0]]
    return float(mcnemar(table, exact=True).pvalue)


def bootstrap_mean(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of `values`, resampling whole clusters."""
    grouped = pd.DataFrame({"value": values, "cluster": clusters}).groupby("cluster", sort=True)["value"]
    sums, counts = grouped.sum().to_numpy(float), grouped.count().to_numpy(float)
    weights = resamples(len(sums), seed=seed)
    low, high = percentile_interval(weights @ sums / (weights @ counts))
    return float(low), float(high)


def ranking(labels: np.ndarray, values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """AUROC and average precision of `values` for boolean `labels` with 95% intervals; NaN where all labels agree."""
    row: dict[str, float] = {"n": len(labels), "base_rate": float(labels.mean())}
    bounds = np.full((3, 2), np.nan)
    if labels.any() and not labels.all():
        bounds = np.stack(ranking_interval(values, labels, seed=seed))
    for column, name in enumerate(("auroc", "average_precision")):
        score, low, high = (float(bound) for bound in bounds[:, column])
        row |= {name: score, f"{name}_low": low, f"{name}_high": high}
    return row


def summarise(instances: pd.DataFrame, reference: str = "pt", seed: int = 0) -> pd.DataFrame:
    """Accuracy of each method, paired with `reference` on the same problems and prompts.

    Args:
        instances: rows of one task: prompt, method, instance, correct, fired, n_tokens.

    Returns:
        One row a method: n (rows), n_prompts, accuracy, low, high, difference (to `reference`), difference_low,
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
        paired_low, paired_high = bootstrap_mean(now.astype(float) - before.astype(float), problems, seed)
        rows.append(
            {
                "method": method,
                "n": len(now),
                "n_prompts": n_prompts,
                "accuracy": now.mean(),
                "low": low,
                "high": high,
                "difference": now.mean() - before.mean(),
                "difference_low": paired_low,
                "difference_high": paired_high,
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
