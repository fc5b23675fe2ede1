"""One mixed model for C5 and one for C2, next to the intervals of the verdicts (docs/method.md, section 8.3).

    C5    dpc - pt = effect + u_prompt + u_problem + e               of each answer: 1 fixed, -1 broken, else 0
    C2    log row share = a + (effect + v_prompt) wrong + b1 log NLL + b2 log length + b3 steps
                          + u_prompt + u_problem + e

Prompts and problems are crossed random effects, fitted by REML (`MixedLM` of statsmodels). C5 is a linear probability
model of the paired difference, so its effect is a difference of accuracies, as in the verdict. C2 is in standard
deviations of the log row share within a prompt. A verdict pools one estimate per prompt; here all answers are in one
model, and the number of steps is a linear term instead of strata.

The interval is effect +- t(df) se. With S prompts and the variance s2 of the effect between them, a share
B = s2 / S of se^2 rests on S prompts alone: df = (S - 1) (se^2 / B)^2, as in `stats/pooling.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpc_interp.claims.measures import measures
from dpc_interp.claims.verdicts import COVARIATES, MIN_OUTCOMES, MIN_PROBLEMS
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.evaluate import Results, check_distinct_prompts
from dpc_interp.stats.bootstrap import LEVEL

RANDOM = {"prompt": "0 + C(prompt)", "problem": "0 + C(problem)"}
"""Random intercepts of both models."""


def mixed_models(results: Sequence[Results]) -> pd.DataFrame:
    """Fit the mixed models of C5 and C2.

    Args:
        results: results of one task, one per tuned prompt, on the same problems.

    Returns:
        One row per claim: task, claim, model (its fixed part), effect with its 95% interval low and high, p, df, n
        (rows of the model), n_problems, n_prompts, reason. Effect, interval and p are NaN, and `reason` says why, where
        there are fewer than two prompts, too few problems or outcomes, no method `dpc`, nothing varies, or the fit
        fails.

    Raises:
        DPCInterpError: no results, results of several tasks, or two of the same prompt.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, dpc.load_problems("story", n=4), prompt, [], rule=rule, progress=False)
        >>> dpc.mixed_models([results])["reason"].tolist()
        ['one prompt', 'one prompt']
    """
    tasks = {result.task for result in results}
    if len(tasks) != 1:
        raise DPCInterpError(f"results of {len(tasks)} tasks; give those of exactly one task")
    check_distinct_prompts(results)
    rows = []
    for claim, frame, formula in (
        ("C5", _changes(results), "change ~ 1"),
        ("C2", _flows(results), f"log_row_share ~ wrong + {' + '.join(COVARIATES)}"),
    ):
        reason = _why_not(claim, frame, len(results))
        estimate = dict.fromkeys(("effect", "low", "high", "p", "df"), np.nan)
        if not reason:
            estimate, reason = _fit(frame, formula, len(results))
        sizes = {"n": len(frame), "n_problems": frame["problem"].nunique(), "n_prompts": len(results)}
        rows.append({"task": min(tasks), "claim": claim, "model": formula, **estimate, **sizes, "reason": reason})
    return pd.DataFrame(rows)


def mixed_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Format `mixed_models` as a table.

    Args:
        frame: frame of `mixed_models`, of one or several tasks.

    Returns:
        One row per task and claim: task, claim, effect (in words), estimate [95%] (or why there is none), p, rows,
        problems and prompts; every cell is finished text or a count.
    """
    cells = [
        {
            "task": row["task"],
            "claim": row["claim"],
            "effect": "accuracy of dpc minus pt" if row["claim"] == "C5" else "log row share, wrong over right, in SD",
            "estimate [95%]": row["reason"] or f"{row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            "p": "–" if row["reason"] else f"{row['p']:.2g}",
            "rows": row["n"],
            "problems": row["n_problems"],
            "prompts": row["n_prompts"],
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(cells)


def _changes(results: Sequence[Results]) -> pd.DataFrame:
    """What dpc changes, one row per prompt and problem; no rows without dpc."""
    frames = [pd.DataFrame({"prompt": [], "problem": [], "change": []})]
    for result in results:
        change = measures(result)["dpc"].dropna()
        frames.append(pd.DataFrame({"problem": list(change.index), "change": change.to_numpy()}))
        frames[-1]["prompt"] = result.prompt
    return pd.concat(frames, ignore_index=True)


def _flows(results: Sequence[Results]) -> pd.DataFrame:
    """The log row share and its covariates, standardised within each prompt; one row per prompt and problem."""
    frames = []
    for result in results:
        frame = measures(result)[["wrong", "log_row_share", *COVARIATES]].dropna()
        scaled = frame[["log_row_share", *COVARIATES]]
        spread = scaled.std(ddof=0).replace(0.0, 1.0)  # a constant covariate is 0 everywhere
        frame = frame.assign(**(scaled - scaled.mean()) / spread, problem=list(frame.index))
        frames.append(frame.assign(prompt=result.prompt))
    return pd.concat(frames, ignore_index=True)


def _why_not(claim: str, frame: pd.DataFrame, n_prompts: int) -> str:
    """Why there is nothing to fit, or nothing."""
    if n_prompts < 2:
        return "one prompt"
    if claim == "C5" and frame.empty:
        return "not evaluated with dpc"
    if frame["problem"].nunique() < MIN_PROBLEMS:
        return f"fewer than {MIN_PROBLEMS} problems"
    if claim == "C5":
        return "" if frame["change"].nunique() > 1 else "nothing varies"
    if min(frame["wrong"].sum(), (1 - frame["wrong"]).sum()) < MIN_OUTCOMES:
        return f"fewer than {MIN_OUTCOMES} right or wrong answers"
    return "" if frame["log_row_share"].nunique() > 1 else "nothing varies"


def _fit(frame: pd.DataFrame, formula: str, n_prompts: int) -> tuple[dict[str, float], str]:
    """The effect with its interval, p and df, and the reason where they are NaN."""
    from scipy import stats as scipy_stats
    from statsmodels.regression.mixed_linear_model import MixedLM

    undefined = dict.fromkeys(("effect", "low", "high", "p", "df"), np.nan)
    term, between, components = "Intercept", "prompt", dict(RANDOM)
    if "wrong" in frame:  # prompts differ in how wrong and right answers differ
        term, between = "wrong", "slope"
        components["slope"] = "0 + C(prompt):wrong"
        for name in COVARIATES:
            if frame[name].nunique() < 2:
                formula = formula.replace(f" + {name}", "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a variance of 0, which is no failure; `converged` says what is one
            model = MixedLM.from_formula(
                formula, frame.assign(all=1), groups="all", re_formula="0", vc_formula=components
            )
            fit = model.fit(method="powell")  # the default methods stop early where a variance is 0
    except np.linalg.LinAlgError:
        return undefined, "the covariates are collinear"
    error = float(fit.bse[term])
    if not fit.converged or not error > 0:
        return undefined, "the fit does not converge"
    variances = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    share = float(variances[between]) / n_prompts / error**2
    df = (n_prompts - 1) / share**2 if share > 0 else np.inf
    effect, half = float(fit.params[term]), float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * scipy_stats.t.sf(abs(effect) / error, df))
    return {"effect": effect, "low": effect - half, "high": effect + half, "p": p, "df": df}, ""
