"""Is the trigger more than length or confidence? Logistic regression of 'PT was wrong' (METHOD 7.2).

    logit P(wrong) = a_prompt + sum over terms of coefficient_k z_k        z: standardised within each prompt

A coefficient is the change in log odds of a wrong answer with one standard deviation of its term, the others held.
Each prompt has an intercept of its own; where prompts share problems, standard errors are clustered by problem.

Where a combination of terms separates wrong from right (found by linear programming: Konis 2007), maximum likelihood
has no finite answer. The fit is then penalised by log-F(1, 1) priors on the terms (Greenland and Mansournia 2015): half
a wrong and half a right pseudo-instance at z_k = 1 for each term, everything else 0. Each problem then counts once,
whatever the number of its prompts: robust errors, made of residuals, would vanish with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linprog
from statsmodels.discrete.discrete_model import Logit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.effects import Array, Flags
from dpc_interp.evaluation.intervals import LEVEL
from dpc_interp.evaluation.ranking import MIN_OUTCOME

COLUMNS = ("coefficient", "low", "high", "p")


def trigger_regression(
    stats: pd.DataFrame, *, statistic: str = "late_share", beside: Sequence[str] = ("length", "nll")
) -> pd.DataFrame:
    """Logistic regressions of 'PT was wrong' on a statistic: alone, with each term beside it, and with all of them.

    Args:
        stats: `trigger_statistics` of the reported instances of one task; rows of several prompts need the column
            `prompt`.
        statistic: the trigger's.
        beside: what it may be a proxy of.

    Returns:
        One row a model and term: task, model (`late_share + length`), term, coefficient (log odds), low, high, p
        (Wald), n, n_wrong, n_prompts, estimator (`maximum likelihood`, or `log-F(1,1)` where outcomes are separated),
        reason. NaN with a reason where fewer than 5 instances of a prompt are wrong or right, a term is
        constant within a prompt, or terms are collinear.

    Raises:
        DPCInterpError: a column is missing, tasks are mixed, a value is not finite, or an instance comes twice under
            one prompt.
    """
    terms = [statistic, *beside]
    _check(stats, terms)
    stats = stats if "prompt" in stats else stats.assign(prompt="")
    wrong = ~stats["correct"].to_numpy(bool)
    by_prompt = stats.groupby("prompt", sort=False)[terms]
    spread = by_prompt.transform("std", ddof=0).where(by_prompt.transform("nunique") > 1)
    scores = (stats[terms] - by_prompt.transform("mean")) / spread
    intercepts = pd.get_dummies(stats["prompt"], dtype=float).to_numpy()
    clusters = pd.factorize(stats["instance"])[0]
    size = {"n": len(stats), "n_wrong": int(wrong.sum()), "n_prompts": intercepts.shape[1]}
    models = [[statistic], *([statistic, other] for other in beside), terms]
    rows = []
    for chosen in dict.fromkeys(map(tuple, models)):
        found, estimator, reason = _fit(scores[list(chosen)].to_numpy(float), intercepts, wrong, clusters)
        for term, values in zip(chosen, found, strict=True):
            cells = dict(zip(COLUMNS, map(float, values), strict=True))
            rows.append(
                {"task": stats["task"].iloc[0], "model": " + ".join(chosen), "term": term}
                | cells
                | size
                | {"estimator": estimator, "reason": reason}
            )
    return pd.DataFrame(rows)


def _check(stats: pd.DataFrame, terms: list[str]) -> None:
    for column in ("instance", "task", "correct", *terms):
        if column not in stats:
            raise DPCInterpError(f"the statistics lack the column {column!r}; give those of dpc.trigger_statistics")
    if stats["task"].nunique() != 1:
        raise DPCInterpError("the statistics are of no task or of several; give the rows of one")
    for term in terms:
        if not np.isfinite(stats[term].to_numpy(float)).all():
            raise DPCInterpError(f"the statistic {term!r} holds values that are not finite; leave those instances out")
    if stats.duplicated([column for column in ("prompt", "instance") if column in stats]).any():
        raise DPCInterpError("an instance comes twice; name each row's prompt in a column 'prompt'")


def _fit(scores: Array, intercepts: Array, wrong: Flags, clusters: NDArray[np.int64]) -> tuple[Array, str, str]:
    """Coefficient, low, high and p of each term [n_terms, 4], how they were found, and why they were not."""
    nothing = np.full((scores.shape[1], len(COLUMNS)), np.nan)
    if min(intercepts[wrong].sum(0).min(), intercepts[~wrong].sum(0).min()) < MIN_OUTCOME:
        return nothing, "none", f"fewer than {MIN_OUTCOME} instances of a prompt are wrong or right"
    if not np.isfinite(scores).all():
        return nothing, "none", "a term is constant within a prompt"
    design = np.hstack([scores, intercepts])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return nothing, "none", "terms are collinear"
    if not _separated(design, wrong):
        shared = len(np.unique(clusters)) < len(clusters)
        robust = {"cov_type": "cluster", "cov_kwds": {"groups": clusters}} if shared else {}
        fit = Logit(wrong.astype(float), design).fit(disp=False, **robust)
        return _terms(fit, scores.shape[1]), "maximum likelihood", ""
    pseudo = np.repeat(np.eye(scores.shape[1], design.shape[1]), 2, axis=0)
    outcome = np.append(wrong, np.arange(len(pseudo)) % 2).astype(float)
    weights = np.append(1 / np.bincount(clusters)[clusters], np.full(len(pseudo), 0.5))
    penalised = GLM(outcome, np.vstack([design, pseudo]), family=Binomial(), freq_weights=weights).fit()
    return _terms(penalised, scores.shape[1]), "log-F(1,1)", "outcomes are separated"


def _terms(fit: Any, n_terms: int) -> Array:
    interval = fit.conf_int(alpha=1 - LEVEL)
    return np.column_stack([fit.params, interval, fit.pvalues])[:n_terms]


def _separated(design: Array, wrong: Flags) -> bool:
    """Whether some direction has no instance on the wrong side of 0, and not all on it: no finite fit is the best."""
    signed = np.where(wrong, 1.0, -1.0)[:, None] * design
    found = linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1))
    return bool(-found.fun > 1e-4)
