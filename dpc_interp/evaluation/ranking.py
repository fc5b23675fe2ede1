"""AUROC and average precision over several prompts, resampling problems with all their prompts.

    AUROC = share of pairs (an instance with the outcome, one without) that the score orders rightly; a tie counts half
    average precision = mean over instances with the outcome of the precision among all that score as high or higher

Both are over pairs and ranks within a prompt, since scales differ between prompts, summed over the prompts: with one
prompt they are the usual scores. `intervals.ranking_interval` keeps the outcomes apart in its resamples; here a problem
may have another outcome under each prompt, and its rows are drawn together.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.evaluation.effects import Array, Flags
from dpc_interp.evaluation.intervals import percentile_interval

MIN_OUTCOME = 5
"""With fewer problems that have, or lack, the outcome nothing is ranked."""


def rank_by_problem(values: Array, positive: Flags, usable: Flags, draws: Array) -> tuple[dict[str, float], str]:
    """AUROC and average precision over all prompts, with 95% intervals.

    Args:
        values, positive, usable: [n_problems, n_prompts]; only usable entries are ranked.
        draws: [n_draws, n_problems], how often each problem is drawn; the first row is ones, the data itself.

    Returns:
        auroc, auroc_low, auroc_high and average_precision, _low, _high; and the reason why they are NaN, else an empty
        text.
    """
    found, reason = np.full((2, 2), np.nan), ""
    if not np.isfinite(values[usable]).all():
        reason = "not finite"
    elif min((labels & usable).any(axis=1).sum() for labels in (positive, ~positive)) < MIN_OUTCOME:
        reason = f"fewer than {MIN_OUTCOME} problems with or without the outcome"
    else:
        by_prompt = zip(values.T, positive.T, usable.T, strict=True)
        above, below = np.sum([ranking_sums(v[rows], p[rows], draws[:, rows]) for v, p, rows in by_prompt], axis=0)
        with np.errstate(invalid="ignore"):  # a draw that lacks an outcome has no ranking
            found = above / below
    low, high = percentile_interval(found[1:])
    row: dict[str, float] = {}
    for k, name in enumerate(("auroc", "average_precision")):
        row |= {name: float(found[0, k]), f"{name}_low": float(low[k]), f"{name}_high": float(high[k])}
    return row, reason


def ranking_sums(values: Array, positive: Flags, weights: Array) -> Array:
    """Numerators and denominators [2, n_draws, 2] of both scores, of instances drawn `weights` [n_draws, n] times."""
    order = np.argsort(-values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.inf))  # of the runs of equal values
    hits, misses = (np.add.reduceat((weights * drawn)[:, order], starts, axis=1) for drawn in (positive, ~positive))
    n_hits, n_misses = hits.sum(1), misses.sum(1)
    hits_so_far, misses_so_far = hits.cumsum(1), misses.cumsum(1)
    ordered = (hits * (n_misses[:, None] - misses_so_far + misses / 2)).sum(1)
    precise = (hits * hits_so_far / np.maximum(hits_so_far + misses_so_far, 1.0)).sum(1)
    return np.stack([np.stack([ordered, precise], axis=1), np.stack([n_hits * n_misses, n_hits], axis=1)])
