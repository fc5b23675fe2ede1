"""Certainty: intervals, paired tests and rank statistics, each from scipy, statsmodels or scikit-learn.

Accuracies carry Wilson intervals where each row is another problem. Where several tuned prompts answer the same problems, and for
every paired difference, intervals come from a seeded bootstrap that resamples problems with all their rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

N_RESAMPLES = 2000
LEVEL = 0.95


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
    draws = np.random.default_rng(seed).integers(len(sums), size=(N_RESAMPLES, len(sums)))
    return _percentiles(sums[draws].sum(1) / counts[draws].sum(1))


def ranking(labels: np.ndarray, values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """AUROC and average precision of `values` for boolean `labels`, each with a 95% bootstrap interval over instances.

    NaN where all labels agree.
    """
    row: dict[str, float] = {"n": len(labels), "base_rate": float(labels.mean())}
    names = ("auroc", "average_precision")
    if labels.all() or not labels.any():
        return row | {f"{name}{end}": float("nan") for name in names for end in ("", "_low", "_high")}
    weights = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=N_RESAMPLES)
    both = (weights[:, labels].sum(1) > 0) & (weights[:, ~labels].sum(1) > 0)
    resampled = weighted_ranking(labels, values, weights[both])
    scores = (roc_auc_score(labels, values), average_precision_score(labels, values))
    for name, score, draws in zip(names, scores, resampled, strict=True):
        low, high = _percentiles(draws)
        row |= {name: float(score), f"{name}_low": low, f"{name}_high": high}
    return row


def weighted_ranking(labels: np.ndarray, values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision for each row of instance weights [draw, instance].

    scikit-learn's definitions, for all rows at once: one call a row takes a minute for what this does in a tenth of a second.
    """
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    hits = np.cumsum(weights[:, order] * labels[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~labels[order], axis=1)[:, ends]
    recall, fallout = hits / hits[:, -1:], alarms / alarms[:, -1:]
    precision = hits / np.maximum(hits + alarms, 1)
    average_precision = (np.diff(recall, prepend=0) * precision).sum(1)
    area = np.trapezoid(np.pad(recall, ((0, 0), (1, 0))), np.pad(fallout, ((0, 0), (1, 0))), axis=1)
    return area, average_precision


def summarise(instances: pd.DataFrame, reference: str = "pt", seed: int = 0) -> pd.DataFrame:
    """Accuracy of each method, paired with `reference` on the same problems and prompts.

    Args:
        instances: rows of one task: prompt, method, instance, correct, fired, n_tokens.

    Returns:
        One row a method: n (rows), n_prompts, accuracy, low, high, difference (to `reference`), difference_low, difference_high, p_mcnemar
        (NaN where several prompts share problems, since their pairs are not independent), fixed, broken, both_right, both_wrong,
        firing_rate, tokens (generated, mean).
    """
    keys = ["prompt", "instance"]
    base = instances[instances["method"] == reference].set_index(keys)["correct"]
    rows = []
    for method, frame in instances.groupby("method", sort=False):
        now = frame.set_index(keys)["correct"].to_numpy(bool)
        before = base.loc[frame.set_index(keys).index].to_numpy(bool)
        problems = frame["instance"].to_numpy()
        n_prompts = frame["prompt"].nunique()
        low, high = wilson(int(now.sum()), len(now)) if n_prompts == 1 else bootstrap_mean(now.astype(float), problems, seed)
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


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
