"""The paper's claims C1 to C5 (docs/method.md, section 1), each judged by a rule that was fixed before the runs.

    holds      the whole 95% interval of the effect lies on the claimed side of the null
    fails      the whole interval lies on the other side, or nothing varies and the effect is not on the claimed side
    undecided  the null lies inside the interval, or there are too few problems or outcomes

The effect is the mean over tuned prompts of one task, the interval is over problems and tuning seeds
(`stats/pooling.py`). Every claim was stated before the runs and is read by itself, so its verdict is not corrected for
the number of claims: three seeds may leave 2 degrees of freedom, where a correction over the 36 rows of a model with
four tasks would require |t| > 26 and decide nothing, true or false. `p_holm`, over all rows of a model, shows which
verdicts remain after the correction.

`verdict_page.py` writes the verdicts as a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from dpc_interp.analysis.schema import conform
from dpc_interp.claims.measures import measures
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.evaluate import Results
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.paired import holm
from dpc_interp.stats.pooling import Estimate, pool_over_prompts
from dpc_interp.stats.weighted import (
    Array,
    Flags,
    weighted_hedges_g,
    weighted_mean,
    weighted_ranking,
    weighted_spearman,
)

Effect = Literal["mean", "g wrong over right", "g right over wrong", "spearman", "auroc"]
"""How the effect of a claim is computed from its columns of `measures`."""
MIN_PROBLEMS = 30
"""Minimum problems of a prompt; below it the prompt is left out."""
MIN_OUTCOMES = 10
"""Minimum right and minimum wrong answers of a prompt, where a claim compares them; below it the prompt is left out."""


@dataclass(frozen=True)
class Claim:
    """A claim and its rule: the claim holds where the effect lies on `side` of `null`.

    Attributes:
        name: short name, such as `C1`.
        statement: the claim as a sentence.
        effect: how the effect is computed.
        columns: columns of `measures` that it is computed from.
        null: value under the null hypothesis.
        side: the claimed side of the null.
        measure_text: the effect in words, a part of `rule`.
        figure: name of the figure that shows the effect.
        bounds: smallest and largest possible value of the effect; the interval is clipped to them.
    """

    name: str
    statement: str
    effect: Effect
    columns: tuple[str, ...]
    null: float
    side: Literal["above", "below"]
    measure_text: str
    figure: str
    bounds: tuple[float, float] = (-np.inf, np.inf)

    @property
    def rule(self) -> str:
        """The rule as a sentence without its subject."""
        return f"holds where {self.measure_text} is {self.side} {self.null:g}"


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
"""Pre-registered: note any change in CHANGELOG."""


def verdicts(
    results: Sequence[Results], *, model: str, controls: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """Judge the claims on each task.

    Args:
        results: results of any tasks; those of one task are its tuned prompts, evaluated on the same problems.
        model: name of the model, for the first column.
        controls: `control_peaks` of these prompts (columns task and prompt joined); None: no row for `C1 own`.
        seed: seed of the bootstrap over problems.

    Returns:
        The frame `verdicts` of `schema.py`, one row per task and claim. Numbers are NaN and the verdict is `undecided`
        where no prompt has the problems, outcomes or methods that the claim needs.

    Raises:
        DPCInterpError: no results, or two of one task with the same prompt.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, dpc.load_problems("story", n=4), prompt, [], rule=rule, progress=False)
        >>> set(dpc.verdicts([results], model="reasoner")["verdict"])  # four problems decide nothing
        {'undecided'}
    """
    if not results:
        raise DPCInterpError("there are no results to judge; evaluate some first")
    claims = [claim for claim in CLAIMS if claim.name != "C1 own" or controls is not None]
    rows = []
    for task, tables in _measures_by_task(results, controls).items():
        problems = pd.Index(sorted(set().union(*(table.index for table in tables))))
        weights = resamples(len(problems), seed=seed)  # every prompt and claim sees the same resampled problems
        rows += [{"model": model, "task": task, **_judge(claim, tables, problems, weights)} for claim in claims]
    frame = pd.DataFrame(rows)
    return conform(frame.assign(p_holm=holm(frame["p"].to_numpy(float))), "verdicts")


def _measures_by_task(results: Sequence[Results], controls: pd.DataFrame | None) -> dict[str, list[pd.DataFrame]]:
    """`measures` of each prompt, by task."""
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for result in results:
        task, prompt = result.instances[["task", "prompt"]].iloc[0]
        if prompt in tables.setdefault(task, {}):
            raise DPCInterpError(f"two results of {task!r} are of the prompt {prompt!r}; give each tuned prompt once")
        rows = None if controls is None else controls[(controls["task"] == task) & (controls["prompt"] == prompt)]
        tables[task][prompt] = measures(result, rows)
    return {task: list(by_prompt.values()) for task, by_prompt in tables.items()}


def _judge(claim: Claim, tables: list[pd.DataFrame], problems: pd.Index, weights: Array) -> dict[str, object]:
    """One row of the frame: the effect over the prompts that have enough problems and outcomes."""
    values, draws = [], []
    used = np.zeros(len(problems), dtype=bool)
    for table in tables:
        known = table[["correct", *claim.columns]].dropna()
        wrong, columns = ~known["correct"].to_numpy(bool), known[list(claim.columns)].to_numpy(float)
        if not _is_enough(claim, wrong):
            continue
        value = _effect(claim, columns, wrong, np.ones((1, len(known))))[0]
        if np.isfinite(value):  # NaN where nothing varies, for example a constant column
            rows = problems.get_indexer(known.index)
            used[rows] = True
            values.append(value)
            draws.append(_effect(claim, columns, wrong, weights[:, rows]))
    estimate = Estimate(float("nan"), float("nan"), float("nan"))
    if values:
        estimate = pool_over_prompts(np.array(values), np.stack(draws, axis=1))
    low, high = np.clip(estimate.interval(), *claim.bounds)
    return {
        "claim": claim.name,
        "verdict": _verdict(claim, estimate, low, high),
        "effect": estimate.value,
        "low": low,
        "high": high,
        "null": claim.null,
        "side": claim.side,
        "p": estimate.p(claim.null),
        "df": estimate.df,
        "n": int(used.sum()),
        "n_prompts": len(values),
        "rule": claim.rule,
        "figure": claim.figure,
    }


def _is_enough(claim: Claim, wrong: Flags) -> bool:
    """Whether a prompt has enough problems, and enough of both outcomes where the claim compares them."""
    compares_outcomes = claim.effect not in ("mean", "spearman")
    rarer = min(int(wrong.sum()), int((~wrong).sum()))
    return len(wrong) >= MIN_PROBLEMS and (not compares_outcomes or rarer >= MIN_OUTCOMES)


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


def _verdict(claim: Claim, estimate: Estimate, low: float, high: float) -> str:
    if not np.isfinite(estimate.value):
        return "undecided"
    sign = 1 if claim.side == "above" else -1
    nearest, farthest = sorted((sign * (low - claim.null), sign * (high - claim.null)))
    if nearest > 0:
        return "holds"
    # se 0: nothing varies, and the effect, here a point, is not on the claimed side
    return "fails" if farthest < 0 or estimate.se == 0 else "undecided"
