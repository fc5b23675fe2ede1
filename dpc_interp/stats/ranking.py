"""AUROC and average precision of a statistic with intervals, for one prompt or several prompts on the same problems.

Scales differ between prompts, so pairs and ranks are formed within a prompt, and the sums of `ranking_sums` are added
over the prompts. With one prompt this gives the usual scores.

The intervals differ: `ranking` resamples instances with and without the outcome separately. In `rank_by_problem` a
problem may have another outcome under each prompt, so a problem is drawn together with all its prompts.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.stats.bootstrap import percentile_interval, ranking_interval
from dpc_interp.stats.weighted import Array, Flags, ranking_sums

MIN_OUTCOME = 5
"""Minimum number of instances with, and without, the outcome; below it scores are NaN."""
SCORES = ("auroc", "average_precision")


def ranking(labels: np.ndarray, values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """AUROC and average precision of a statistic with 95% intervals.

    Args:
        labels: booleans [n], the outcome.
        values: [n], the statistic.
        seed: seed of the bootstrap.

    Returns:
        `n`, `base_rate` (share with the outcome), `auroc` and `average_precision`, and both with the suffixes `_low`
        and `_high`. Scores are NaN where all labels are equal.
    """
    bounds = np.full((3, 2), np.nan)
    if labels.any() and not labels.all():
        bounds = np.stack(ranking_interval(values, labels, seed=seed))
    return {"n": len(labels), "base_rate": float(labels.mean())} | _score_row(bounds)


def rank_by_problem(values: Array, positive: Flags, usable: Flags, draws: Array) -> tuple[dict[str, float], str]:
    """AUROC and average precision over all prompts with 95% intervals.

    Args:
        values: [n_problems, n_prompts], the statistic.
        positive: [n_problems, n_prompts], the outcome.
        usable: [n_problems, n_prompts]; only usable entries are ranked.
        draws: [n_draws, n_problems], how often each problem is drawn; the first row is ones, the data itself.

    Returns:
        The scores and bounds, by the names that `ranking` uses; and the reason why they are NaN, else an empty text.
    """
    reason, bounds = "", np.full((3, 2), np.nan)
    if not np.isfinite(values[usable]).all():
        reason = "not finite"
    elif min((labels & usable).any(axis=1).sum() for labels in (positive, ~positive)) < MIN_OUTCOME:
        reason = f"fewer than {MIN_OUTCOME} problems with or without the outcome"
    else:
        by_prompt = zip(values.T, positive.T, usable.T, strict=True)
        numerators, denominators = np.sum([ranking_sums(v[u], p[u], draws[:, u]) for v, p, u in by_prompt], axis=0)
        with np.errstate(invalid="ignore"):  # a draw may lack an outcome
            scores = numerators / denominators
        bounds = np.stack([scores[0], *percentile_interval(scores[1:])])
    return _score_row(bounds), reason


def _score_row(bounds: Array) -> dict[str, float]:
    """Estimate, lower and upper bound of both scores [3, 2] by name."""
    row: dict[str, float] = {}
    for column, name in enumerate(SCORES):
        score, low, high = (float(bound) for bound in bounds[:, column])
        row |= {name: score, f"{name}_low": low, f"{name}_high": high}
    return row
