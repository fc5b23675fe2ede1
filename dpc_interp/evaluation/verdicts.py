"""The paper's claims C1 to C5 (METHOD 1), each with an effect, its interval, and what follows by a rule fixed here.

    holds      the whole 95% interval lies on the claimed side of the null
    fails      the whole interval lies on the other side, or nothing varies and the effect is not on the claimed side
    undecided  the null lies inside, or too few problems or outcomes are there

The effect is the mean over tuned prompts of one task, the interval over problems and tuning seeds (`crossed.py`). Each
claim was stated before the runs and is read by itself, so its verdict is not corrected for the others: with three seeds
the degrees of freedom may be 2, where a correction over the 36 rows of a model with four tasks would ask for |t| > 26
and leave nothing decided, true or false. `p_holm`, over all rows of a model, says which verdicts stand even so.

`verdict_page.py` writes them as a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.crossed import Estimate, over_prompts
from dpc_interp.evaluation.effects import (
    Array,
    Flags,
    weighted_hedges_g,
    weighted_mean,
    weighted_ranking,
    weighted_spearman,
)
from dpc_interp.evaluation.intervals import resamples
from dpc_interp.evaluation.measures import measures
from dpc_interp.evaluation.methods import Results
from dpc_interp.evaluation.statistics import holm

Effect = Literal["mean", "g wrong over right", "g right over wrong", "spearman", "auroc"]
MIN_PROBLEMS = 30
"""Fewer problems of a prompt decide nothing; such a prompt is left out."""
MIN_OUTCOMES = 10
"""The same for right and for wrong answers, where a claim compares them."""


@dataclass(frozen=True)
class Claim:
    """What is claimed, and the rule: `effect` of `columns` (of `measures`) lies on `side` of `null`."""

    name: str
    says: str
    effect: Effect
    columns: tuple[str, ...]
    null: float
    side: Literal["above", "below"]
    measured: str
    figure: str
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def rule(self) -> str:
        """One sentence."""
        return f"holds where {self.measured} is {self.side} {self.null:g}"


CLAIMS = (
    Claim("C1", "Information accumulates in few prompt tokens, in shallow layers.", "mean", ("peak_ratio",),
          2.0, "above", "the mean peak ratio of the shallow layers", "fig3_accumulation"),
    Claim("C1 own", "What accumulates is the trained prompt's own, not that of any leading tokens.", "mean",
          ("own_ratio",), 0.0, "above", "the mean peak ratio of the trained prompt minus that of the untrained one",
          "fig8_sink_control"),
    Claim("C2", "Where the answer is wrong, deep layers carry more flow from the prompt into later steps.",
          "g wrong over right", ("deep_flow",), 0.0, "above",
          "Hedges' g of the deep late prompt flow, wrong over right,", "fig4_layer_flow"),
    Claim("C2 steps", "Where the answer is right, later steps rest on the question and on earlier steps.",
          "g right over wrong", ("grounded",), 0.0, "above",
          "Hedges' g, right over wrong, of the share of deep flow into late steps that comes from question and earlier "
          "steps", "fig5_step_flow"),
    Claim("C3", "C1 and C2 occur together on an instance.", "spearman", ("peak_ratio", "late_share"), 0.0, "above",
          "Spearman's correlation of peak ratio and late share", "fig7_cooccurrence", (-1.0, 1.0)),
    Claim("C4", "The late share tells harmful instances apart.", "auroc", ("late_share",), 0.5, "above",
          "the AUROC of the late share against 'PT was wrong'", "fig6_trigger", (0.0, 1.0)),
    Claim("C5", "Corruption where triggered lifts accuracy over prompt tuning.", "mean", ("dpc",), 0.0, "above",
          "the accuracy of dpc minus that of pt", "tab1_accuracy", (-1.0, 1.0)),
    Claim("C5 random", "Random corruption hurts.", "mean", ("random",), 0.0, "below",
          "the accuracy of random minus that of pt", "tab1_accuracy", (-1.0, 1.0)),
    Claim("C5 always", "Corruption without the trigger gains little: less than one point.", "mean", ("always",),
          0.01, "below", "the accuracy of always minus that of pt", "tab1_accuracy", (-1.0, 1.0)),
)  # fmt: skip
"""The rules. Fixed before the runs: a change here is a change of what is claimed, and is told as one."""


def verdicts(
    results: Sequence[Results], *, model: str, controls: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """What holds, by task and claim.

    Args:
        results: of any tasks; those of one task are its tuned prompts, on the same problems.
        model: its name, for the first column.
        controls: `control_peaks` of these prompts (columns task and prompt joined); without them C1 own has no row.
        seed: of the bootstrap over problems.

    Returns:
        One row a task and claim: model, task, claim, verdict, effect, low, high, null, side, p (two-sided, of the
        null), p_holm (over all rows), df, n (problems), n_prompts, rule, figure. Numbers are NaN and the verdict is
        undecided where no prompt has the problems, outcomes or methods that the claim needs.

    Raises:
        DPCInterpError: no results, or two of one task with the same prompt.
    """
    if not results:
        raise DPCInterpError("there are no results to judge; evaluate some first")
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for result in results:
        task, prompt = result.instances[["task", "prompt"]].iloc[0]
        if prompt in tables.setdefault(task, {}):
            raise DPCInterpError(f"two results of {task!r} are of the prompt {prompt!r}; give each tuned prompt once")
        own = None if controls is None else controls[(controls["task"] == task) & (controls["prompt"] == prompt)]
        tables[task][prompt] = measures(result, own)
    known = [claim for claim in CLAIMS if claim.name != "C1 own" or controls is not None]
    rows = []
    for task, of_task in tables.items():
        problems = pd.Index(sorted(set().union(*(table.index for table in of_task.values()))))
        weights = resamples(len(problems), seed=seed)  # the same problems for all prompts and claims
        for claim in known:
            rows.append({"model": model, "task": task, **_judge(claim, list(of_task.values()), problems, weights)})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def _judge(claim: Claim, prompts: list[pd.DataFrame], problems: pd.Index, weights: Array) -> dict[str, object]:
    """One row: the effect over the prompts that have enough to tell."""
    values, draws = [], []
    used = np.zeros(len(problems), dtype=bool)
    for table in prompts:
        known = table[["correct", *claim.columns]].dropna()
        wrong, columns = ~known["correct"].to_numpy(bool), known[list(claim.columns)].to_numpy(float)
        if not _enough(claim, wrong):
            continue
        value = _effect(claim, columns, wrong, np.ones((1, len(known))))[0]
        if np.isfinite(value):  # not where nothing varies
            rows = problems.get_indexer(known.index)
            used[rows] = True
            values.append(value)
            draws.append(_effect(claim, columns, wrong, weights[:, rows]))
    found = Estimate(float("nan"), float("nan"), float("nan"))
    if values:
        found = over_prompts(np.array(values), np.stack(draws, axis=1))
    low, high = np.clip(found.interval(), *claim.limits)
    return {
        "claim": claim.name,
        "verdict": _verdict(claim, found, low, high),
        "effect": found.value,
        "low": low,
        "high": high,
        "null": claim.null,
        "side": claim.side,
        "p": found.p(claim.null),
        "p_holm": float("nan"),
        "df": found.df,
        "n": int(used.sum()),
        "n_prompts": len(values),
        "rule": claim.rule,
        "figure": claim.figure,
    }


def _enough(claim: Claim, wrong: Flags) -> bool:
    """Whether the problems, and the outcomes where they are compared, suffice to judge a prompt."""
    compared = claim.effect not in ("mean", "spearman")
    rarer = min(int(wrong.sum()), int((~wrong).sum()))
    return len(wrong) >= MIN_PROBLEMS and (not compared or rarer >= MIN_OUTCOMES)


def _effect(claim: Claim, values: Array, wrong: Flags, weights: Array) -> Array:
    """The claim's effect of `values` [n, n_columns] in each resample, [n_resamples]."""
    if claim.effect == "mean":
        return weighted_mean(values, weights)[:, 0]
    if claim.effect == "spearman":
        return weighted_spearman(values[:, 0], values[:, 1], weights)
    if claim.effect == "auroc":
        return weighted_ranking(values[:, 0], wrong, weights)[:, 0]
    sign = 1.0 if claim.effect == "g wrong over right" else -1.0
    return sign * weighted_hedges_g(values[wrong], values[~wrong], weights[:, wrong], weights[:, ~wrong])[:, 0]


def _verdict(claim: Claim, found: Estimate, low: float, high: float) -> str:
    if not np.isfinite(found.value):
        return "undecided"
    sign = 1 if claim.side == "above" else -1
    nearest, farthest = sorted((sign * (low - claim.null), sign * (high - claim.null)))
    if nearest > 0:
        return "holds"
    return "fails" if farthest < 0 or found.se == 0 else "undecided"
