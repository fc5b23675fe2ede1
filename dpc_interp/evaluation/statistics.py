"""Certainty: the intervals and paired tests of an evaluation's tables.

Accuracies carry Wilson intervals where each row is another problem. Where several tuned prompts answer the same
problems, and for every paired difference, intervals come from a seeded bootstrap that resamples problems with all their
rows: they are about these prompts. Those of `verdicts`, over problems and tuning seeds, are about any prompt so tuned.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from dpc_interp.evaluation.intervals import (
    LEVEL,
    hedges_g,
    mean_interval,
    percentile_interval,
    ranking_interval,
    resamples,
)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95% Wilson interval of a proportion."""
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def exact_mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test on paired booleans; 1 where no pair differs."""
    table = [[0, int((first & ~second).sum())], [int((~first & second).sum()), 0]]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction of p values for their number; NaN stays NaN and counts for nothing."""
    corrected, known = np.full(len(p_values), np.nan), np.isfinite(p_values)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected


def outcome_effects(wrong: np.ndarray, right: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Wrong [n, k] against right [m, k], one row a column of theirs (a layer).

    Returns:
        n_right, n_wrong, right, wrong (means), effect (Hedges' g, positive where wrong is larger) with low and high
        (seeded bootstrap), p (Welch's t test), p_holm (over the rows). NaN where an outcome has fewer than two
        instances or nothing varies.
    """
    k = wrong.shape[1]
    effect, low, high = hedges_g(wrong, right, seed=seed)
    means = [group.mean(axis=0) if len(group) else np.full(k, np.nan) for group in (right, wrong)]
    p = np.full(k, np.nan)
    if min(len(wrong), len(right)) > 1:
        varies = np.isfinite(effect)
        p[varies] = scipy_stats.ttest_ind(wrong[:, varies], right[:, varies], equal_var=False).pvalue
    columns = {"n_right": len(right), "n_wrong": len(wrong), "right": means[0], "wrong": means[1], "effect": effect}
    return pd.DataFrame({**columns, "low": low, "high": high, "p": p, "p_holm": holm(p)}, index=range(k))


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


def sink_summary(found: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`control_peaks` by condition: what of the accumulation is the prompt's own (METHOD 7.1).

    Returns:
        One row a task, prompt and condition: n, peak_ratio (mean) with low and high, own_ratio (the trained prompt's
        peak ratio minus this one's, paired by instance) with own_low and own_high, peak_token (the most frequent one),
        peak_share (of instances that peak there), first_share (of instances where virtual token 0 draws most).
    """
    rows = []
    for (task, prompt), of_prompt in found.groupby(["task", "prompt"], sort=False):
        by_condition = of_prompt.pivot_table(index="instance", columns="condition", values="peak_ratio")
        trained = by_condition.get("trained", pd.Series(np.nan, index=by_condition.index))
        for condition, frame in of_prompt.groupby("condition", sort=False):
            ratio = by_condition[condition]
            value, low, high = mean_interval(np.stack([ratio, trained - ratio], axis=1).astype(float), seed=seed)
            counts = frame["peak_token"].value_counts()
            rows.append(
                {
                    "task": task,
                    "prompt": prompt,
                    "condition": condition,
                    "n": len(frame),
                    "peak_ratio": value[0],
                    "low": low[0],
                    "high": high[0],
                    "own_ratio": value[1],
                    "own_low": low[1],
                    "own_high": high[1],
                    "peak_token": int(counts.index[0]),
                    "peak_share": counts.iloc[0] / len(frame),
                    "first_share": frame["first_is_peak"].mean(),
                }
            )
    return pd.DataFrame(rows)
