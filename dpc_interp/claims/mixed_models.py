"""One mixed model for C5 and one for C2, next to the intervals of the verdicts (docs/method.md, section 8.3).

    C5    correct       = a + effect * (dpc instead of pt) + u_prompt + u_problem + v_(prompt, method) + e
    C2    log row share = a + effect * wrong + b1 log NLL + b2 log length + b3 steps + u_prompt + u_problem + e

Prompts and problems are crossed random effects, fitted by REML (`MixedLM` of statsmodels). C5 is a linear probability
model, so its effect is a difference of accuracies, as in the verdict. The effect of C2 is in standard deviations of the
log row share. A verdict pools one estimate per prompt; here all answers are in one model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm
from statsmodels.regression.mixed_linear_model import MixedLM

from dpc_interp.claims.measures import measures
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.stats.bootstrap import LEVEL

COVARIATES = ("log_nll", "log_length", "n_steps")
RANDOM = ("prompt", "problem")
MODELS = {"C5": "correct ~ method", "C2": f"log_row_share ~ wrong + {' + '.join(COVARIATES)}"}
"""Claim -> the fixed part of its model; the first term is the effect."""


def mixed_models(results: Sequence[Results]) -> pd.DataFrame:
    """Fit the mixed models of C5 and C2.

    Args:
        results: results of one task, one per tuned prompt, on the same problems; C5 needs the method `dpc`.

    Returns:
        One row per claim: task, claim, model (its fixed part), effect with its 95% interval low and high, p (Wald),
        n (rows of the model), n_problems, n_prompts, reason. Effect, interval and p are NaN, and `reason` says why,
        where there are fewer than two prompts, nothing varies, or the fit does not converge.

    Raises:
        DPCInterpError: no results, or results of several tasks.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, dpc.load_problems("story", n=4), prompt, [], rule=rule, progress=False)
        >>> dpc.mixed_models([results])["reason"].tolist()
        ['one prompt', 'one prompt']
    """
    tasks = {str(task) for result in results for task in result.instances["task"]}
    if len(tasks) != 1:
        raise DPCInterpError(f"results of {len(tasks)} tasks; give those of exactly one task")
    rows = []
    for claim, frame in (("C5", _answers(results)), ("C2", _flows(results))):
        n_problems, n_prompts = frame["problem"].nunique(), frame["prompt"].nunique()
        sizes = {"n": len(frame), "n_problems": n_problems, "n_prompts": n_prompts}
        (effect, error), reason = _fit(frame, claim) if n_prompts > 1 else ((np.nan, np.nan), "one prompt")
        half = norm.ppf((1 + LEVEL) / 2) * error
        p = 2 * norm.sf(abs(effect) / error)
        estimate = {"effect": effect, "low": effect - half, "high": effect + half, "p": p}
        rows.append({"task": min(tasks), "claim": claim, "model": MODELS[claim], **estimate, **sizes, "reason": reason})
    return pd.DataFrame(rows)


def mixed_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Format `mixed_models` as a table.

    Args:
        frame: frame of `mixed_models`, of one or several tasks.

    Returns:
        One row per task and claim; every cell is finished text or a count.
    """
    cells = [
        {
            "task": row["task"],
            "claim": row["claim"],
            "effect": "accuracy of dpc minus pt" if row["claim"] == "C5" else "log row share, wrong over right, in SD",
            "estimate [95%]": row["reason"] or f"{row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            "p": "–" if row["reason"] else f"{row['p']:.2g}",
            "answers": row["n"],
            "problems": row["n_problems"],
            "prompts": row["n_prompts"],
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(cells)


def _answers(results: Sequence[Results]) -> pd.DataFrame:
    """Whether pt and dpc are correct, one row per prompt, problem and method."""
    rows = pd.concat([result.instances for result in results], ignore_index=True)
    rows = rows[rows["method"].isin(["pt", "dpc"])]
    return pd.DataFrame(
        {
            "prompt": rows["prompt"].astype(str),
            "problem": rows["instance"],
            "method": (rows["method"] == "dpc").astype(float),
            "correct": rows["correct"].astype(float),
        }
    )


def _flows(results: Sequence[Results]) -> pd.DataFrame:
    """The standardised log row share with its covariates, one row per prompt and problem with a rationale."""
    frames = []
    for result in results:
        frame = measures(result)[["wrong", "log_row_share", *COVARIATES]].dropna()
        frames.append(frame.assign(prompt=str(result.instances["prompt"].iloc[0]), problem=list(frame.index)))
    rows = pd.concat(frames, ignore_index=True)
    scaled = rows[["log_row_share", *COVARIATES]]
    spread = scaled.std(ddof=0).replace(0.0, 1.0)  # a constant covariate is 0 everywhere
    return rows.assign(**(scaled - scaled.mean()) / spread)


def _fit(frame: pd.DataFrame, claim: str) -> tuple[tuple[float, float], str]:
    """The effect with its standard error, and the reason where they are NaN."""
    outcome, term = MODELS[claim].split()[0], MODELS[claim].split()[2]
    undefined = (np.nan, np.nan)
    if min(frame[outcome].nunique(), frame[term].nunique()) < 2:
        return undefined, "nothing varies"
    constant = [name for name in COVARIATES if name in frame and frame[name].nunique() < 2]
    formula = MODELS[claim]
    for name in constant:
        formula = formula.replace(f" + {name}", "")
    components = {name: f"0 + C({name})" for name in RANDOM}
    if claim == "C5":  # prompts differ in what corruption does to them
        components["prompt and method"] = "0 + C(prompt):C(method)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a variance of 0, which is no failure; `converged` says what is one
        model = MixedLM.from_formula(formula, frame.assign(all=1), groups="all", re_formula="0", vc_formula=components)
        fit = model.fit(method="powell")  # the default methods stop early where a variance is 0
    error = float(fit.bse[term])
    if not fit.converged or not error > 0:
        return undefined, "the fit does not converge"
    return (float(fit.params[term]), error), ""
