"""Is the trigger more than length or confidence? Logistic regression of 'PT was wrong' (docs/method.md, section 7.2).

    logit P(wrong) = a_prompt + sum over terms of coefficient_k z_k        z: standardised within each prompt

A coefficient is the change in the log odds of a wrong answer per standard deviation of its term, with the other terms
fixed. Each prompt has its own intercept; where prompts share problems, standard errors are clustered by problem.

Where a combination of terms separates wrong from right answers (tested by linear programming, Konis 2007), maximum
likelihood has no finite solution. The fit is then penalised by log-F(1, 1) priors on the terms (Greenland and
Mansournia 2015): for each term, half a wrong and half a right pseudo-instance at z_k = 1 with everything else 0. Each
problem then has total weight 1, whatever its number of prompts, instead of clustered errors: these are computed from
residuals, which vanish where outcomes are separated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError, renamed_keywords
from dpc_interp.stats.bootstrap import LEVEL
from dpc_interp.stats.ranking import MIN_OUTCOME
from dpc_interp.stats.weighted import Array, Flags

COLUMNS = ("coefficient", "low", "high", "p")
"""The estimates of a term."""


@renamed_keywords({"beside": "covariates"})
def trigger_regression(
    stats: pd.DataFrame, *, statistic: str = "late_share", covariates: Sequence[str] = ("length", "nll")
) -> pd.DataFrame:
    """Regress 'PT was wrong' on a trigger statistic: alone, with each covariate, and with all covariates.

    Args:
        stats: `trigger_statistics` of the reported instances of one task; rows of several prompts need the column
            `prompt`.
        statistic: column of the trigger statistic.
        covariates: columns that the statistic may be a proxy of.

    Returns:
        One row per model and term: `task`, `model` (such as `late_share + length`), `term`; `coefficient` (log odds per
        standard deviation) with `low`, `high` and `p` (Wald); `n`, `n_wrong`, `n_prompts`; `estimator` (`maximum
        likelihood`, or `log-F(1,1)` where outcomes are separated, or `none`) and `reason`. The estimates are NaN, and
        `reason` says why, where fewer than 5 instances of a prompt are wrong or right, a term is constant within a
        prompt, or terms are collinear.

    Raises:
        DPCInterpError: a column is missing, tasks are mixed, a value is not finite, or a prompt has two rows of the
            same instance.

    Example:
        >>> import numpy as np, pandas as pd
        >>> import dpc_interp as dpc
        >>> stats = pd.DataFrame({"late_share": np.arange(40) / 40, "length": np.arange(40) % 7, "task": "story"})
        >>> stats = stats.assign(instance=np.arange(40), correct=np.arange(40) % 5 * 8 > np.arange(40))
        >>> fits = dpc.trigger_regression(stats, covariates=["length"])
        >>> fits["model"].unique().tolist()
        ['late_share', 'late_share + length']
        >>> bool(fits["low"].iloc[0] > 0)
        True
    """
    terms = [statistic, *covariates]
    _check_statistics(stats, terms)
    stats = stats if "prompt" in stats else stats.assign(prompt="")
    wrong = ~stats["correct"].to_numpy(bool)
    by_prompt = stats.groupby("prompt", sort=False)[terms]
    spread = by_prompt.transform("std", ddof=0).where(by_prompt.transform("nunique") > 1)
    scores = (stats[terms] - by_prompt.transform("mean")) / spread
    intercepts = pd.get_dummies(stats["prompt"], dtype=float).to_numpy()
    clusters = pd.factorize(stats["instance"])[0]
    size = {"n": len(stats), "n_wrong": int(wrong.sum()), "n_prompts": intercepts.shape[1]}
    models = [[statistic], *([statistic, covariate] for covariate in covariates), terms]
    rows = []
    for model_terms in dict.fromkeys(map(tuple, models)):  # with a single covariate, two of the models are the same
        estimates, estimator, reason = _fit(scores[list(model_terms)].to_numpy(float), intercepts, wrong, clusters)
        for term, values in zip(model_terms, estimates, strict=True):
            rows.append(
                {"task": stats["task"].iloc[0], "model": " + ".join(model_terms), "term": term}
                | dict(zip(COLUMNS, map(float, values), strict=True))
                | size
                | {"estimator": estimator, "reason": reason}
            )
    return pd.DataFrame(rows)


def _check_statistics(stats: pd.DataFrame, terms: list[str]) -> None:
    """Raise `DPCInterpError` for statistics that cannot be read."""
    for column in ("instance", "task", "correct", *terms):
        if column not in stats:
            raise DPCInterpError(f"the statistics lack the column {column!r}; give those of dpc.trigger_statistics")
    if stats["task"].nunique() != 1:
        raise DPCInterpError("the statistics are not those of exactly one task; give the rows of one task")
    for term in terms:
        if not np.isfinite(stats[term].to_numpy(float)).all():
            raise DPCInterpError(f"the statistic {term!r} holds values that are not finite; leave those instances out")
    if stats.duplicated([column for column in ("prompt", "instance") if column in stats]).any():
        raise DPCInterpError("an instance has two rows; give the rows of several prompts a column 'prompt'")


def _fit(scores: Array, intercepts: Array, wrong: Flags, clusters: NDArray[np.int64]) -> tuple[Array, str, str]:
    """Coefficient, low, high and p of each term [n_terms, 4]; the estimator; the reason for NaN or for the penalty."""
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    undefined = np.full((scores.shape[1], len(COLUMNS)), np.nan)
    if min(intercepts[wrong].sum(0).min(), intercepts[~wrong].sum(0).min()) < MIN_OUTCOME:
        return undefined, "none", f"fewer than {MIN_OUTCOME} instances of a prompt are wrong or right"
    if not np.isfinite(scores).all():
        return undefined, "none", "a term is constant within a prompt"
    design = np.hstack([scores, intercepts])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return undefined, "none", "terms are collinear"
    if not _are_separated(design, wrong):
        is_clustered = len(np.unique(clusters)) < len(clusters)
        robust = {"cov_type": "cluster", "cov_kwds": {"groups": clusters}} if is_clustered else {}
        fit = Logit(wrong.astype(float), design).fit(disp=False, **robust)
        return _term_estimates(fit, scores.shape[1]), "maximum likelihood", ""
    # the priors as data: a wrong and a right row per term, of weight one half and without an intercept
    pseudo = np.repeat(np.eye(scores.shape[1], design.shape[1]), 2, axis=0)
    outcome = np.append(wrong, np.arange(len(pseudo)) % 2).astype(float)
    weights = np.append(1 / np.bincount(clusters)[clusters], np.full(len(pseudo), 0.5))
    penalised = GLM(outcome, np.vstack([design, pseudo]), family=Binomial(), freq_weights=weights).fit()
    return _term_estimates(penalised, scores.shape[1]), "log-F(1,1)", "outcomes are separated"


def _term_estimates(fit: Any, n_terms: int) -> Array:
    """The rows of `COLUMNS` of the terms, which come before the intercepts [n_terms, 4]."""
    interval = fit.conf_int(alpha=1 - LEVEL)
    return np.column_stack([fit.params, interval, fit.pvalues])[:n_terms]


def _are_separated(design: Array, wrong: Flags) -> bool:
    """Whether some direction of the design has every instance on the side of its outcome or at 0, but not all at 0.

    The likelihood then grows along this direction without bound.
    """
    from scipy.optimize import linprog

    signed = np.where(wrong, 1.0, -1.0)[:, None] * design
    solution = linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1))
    return bool(-solution.fun > 1e-4)  # 0 up to the tolerance of the solver where outcomes overlap
