"""The paper's claims C1 to C5 (docs/method.md, section 1), each judged by a rule that was fixed before the runs.

    holds         the whole 95% interval of the effect lies on the claimed side of the null, or, where no more than a
                  small effect is claimed, within the null's distance of 0
    fails         the whole interval lies on the other side, or beyond that distance
    undecided     the null lies inside the interval; `excludes_paper` says whether an effect as large as the paper's
                  lies outside
    not testable  the experiment cannot speak of the claim: `reason` says why

The effect is the mean over tuned prompts of one task, the interval is over problems and tuning seeds
(`stats/pooling.py`; of answers that a method changes, `stats/changes.py`), and for C5 over calibrations of the trigger
(`firing.py`). Every claim was stated before the runs and
is read by itself, so its verdict is not corrected for the number of claims: three seeds may leave 2 degrees of freedom,
where a correction over the 52 rows of a model with four tasks would require |t| > 26 and decide nothing, true or false.
`p_holm`, over all rows of a model, shows which verdicts remain after the correction.

`verdict_page.py` writes the verdicts as a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpc_interp.analysis.schema import conform
from dpc_interp.claims.firing import redrawn_gains
from dpc_interp.claims.measures import COLUMNS, METHODS, measures
from dpc_interp.claims.regime import obstacles, regime, start_obstacle, trigger_obstacle
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.evaluate import Results, check_distinct_prompts
from dpc_interp.stats.adjusted import weighted_adjusted_difference
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.changes import Gain, gain, widened
from dpc_interp.stats.paired import holm
from dpc_interp.stats.pooling import pool_over_prompts
from dpc_interp.stats.weighted import Array, Flags, weighted_hedges_g, weighted_mean, weighted_ranking

Effect = Literal[
    "gain",
    "mean",
    "g wrong over right",
    "g right over wrong",
    "adjusted wrong over right",
    "adjusted right over wrong",
    "risk difference",
    "auroc",
]
"""How the effect of a claim is computed from its columns of `measures`."""
MIN_PROBLEMS = 30
"""Minimum problems of a prompt; below it the prompt is left out."""
MIN_OUTCOMES = 10
"""Minimum right and minimum wrong answers of a prompt, where a claim compares them; below it the prompt is left out."""
MIN_FIRED = 30
"""Minimum answers, over all prompts, on which a method fires; below it nothing can be said about the method."""
COVARIATES = ("log_nll", "log_length", "n_steps")
"""The covariates: a mean loss makes every flow larger where the loss is large or the text is short."""
MAX_STRATUM = 6
"""Numbers of steps above it are one stratum."""
PAPER_GAIN = 0.021
"""The paper's gain of DPC over prompt tuning (Llama-3-8B, GSM8K)."""
REGIME_AND_TRIGGER = ("late", "harmed", "trigger")
UNKNOWN = Gain(*[float("nan")] * 5)


@dataclass(frozen=True)
class _Measured:
    """`measures` of one prompt as arrays, which are selected in a tenth of the time that frames take.

    Attributes:
        problems: position of each row among the problems of the task.
        columns: name -> values, one per row.
    """

    problems: NDArray[np.intp]
    columns: dict[str, Array]

    def known(self, claim: Claim) -> _Measured:
        """The rows in which everything that the claim compares is known."""
        firings = [f"{method}_fired" for method in METHODS] if claim.effect == "gain" else []
        columns = {name: self.columns[name] for name in ("correct", *claim.columns, *firings)}
        keep = ~np.isnan(np.stack(list(columns.values()))).any(axis=0)
        return _Measured(self.problems[keep], {name: values[keep] for name, values in columns.items()})

    def is_enough(self, claim: Claim) -> bool:
        """Whether there are enough problems, and enough of both outcomes where the claim compares them."""
        n = len(self.problems)
        if claim.effect in ("gain", "mean", "risk difference"):
            return n >= MIN_PROBLEMS
        n_positive = self.columns[claim.columns[1] if claim.effect == "auroc" else "correct"].sum()
        return n >= MIN_PROBLEMS and bool(min(n_positive, n - n_positive) >= MIN_OUTCOMES)


@dataclass(frozen=True)
class Claim:
    """A claim and its rule: the claim holds where the effect lies on `side` of `null`, or within `null` of 0.

    Attributes:
        name: short name, such as `C1`.
        statement: the claim as a sentence.
        effect: how the effect is computed.
        columns: columns of `measures` that it is computed from.
        null: value under the null hypothesis; of an equivalence, the smallest effect that is not small.
        side: the claimed side of the null; `within`: an equivalence, the effect is smaller than the null in size.
        measure_text: the effect in words, a part of `rule`.
        figure: name of a related figure or table.
        bounds: smallest and largest possible value of the effect; the interval is clipped to them.
        paper: the effect that the paper reports (Llama-3-8B on GSM8K); NaN where it gives none.
        needs: keys of `regime.obstacles`, or `trigger`, without which the claim is not testable.
    """

    name: str
    statement: str
    effect: Effect
    columns: tuple[str, ...]
    null: float
    side: Literal["above", "below", "within"]
    measure_text: str
    figure: str
    bounds: tuple[float, float] = (-np.inf, np.inf)
    paper: float = np.nan
    needs: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The rule as a sentence without its subject."""
        null = f"{self.null:g} of 0" if self.side == "within" else f"{self.null:g}"
        return f"holds where {self.measure_text} is {self.side} {null}"

    def distances(self, low: float, high: float) -> tuple[float, float]:
        """How far the end of an interval that is nearest to the null, and the farthest, lie on the claimed side."""
        if self.side == "within":
            return self.null - max(high, -low), self.null - max(low, -high, 0.0)
        sign = 1 if self.side == "above" else -1
        nearest, farthest = sorted((sign * (low - self.null), sign * (high - self.null)))
        return nearest, farthest


CLAIMS = (
    Claim("C1", "Information accumulates in few prompt tokens, in shallow layers.", "mean", ("peak_over_chance",),
          0.0, "above", "the mean log of the peak ratio of the shallow layers over its chance level",
          "fig3_accumulation"),
    Claim("C1 own", "What accumulates is the trained prompt's own, not that of the prompt its tuning started from.",
          "mean", ("own_ratio",), 0.0, "above",
          "the mean log of the trained prompt's peak ratio over that of the prompt its tuning started from",
          "fig8_sink_control", needs=("start",)),
    Claim("C1 peak", "Where the answer is wrong, the question draws on one dominant prompt token.",
          "g wrong over right", ("question_peak",), 0.0, "above",
          "Hedges' g, wrong over right, of the log peak ratio of the flow into the question", "fig3_accumulation"),
    Claim("C1 even", "Where the answer is right, the question draws on the prompt evenly.",
          "g right over wrong", ("question_evenness",), 0.0, "above",
          "Hedges' g, right over wrong, of the evenness of the flow into the question", "fig3_accumulation"),
    Claim("C2", "Where the answer is wrong, deep layers carry more flow from the prompt into later steps.",
          "adjusted wrong over right", ("log_row_share", *COVARIATES), 0.0, "above",
          "the difference, wrong over right, of the log of the prompt's share of the deep flow into the late half, "
          "adjusted for log NLL, log length and the number of steps, in SD,", "fig4_layer_flow", needs=("late",)),
    Claim("C2 raw", "The same of the flow itself, which a larger loss makes larger wherever it comes from.",
          "g wrong over right", ("log_flow",), 0.0, "above",
          "Hedges' g, wrong over right, of the log of the deep flow from the prompt into the late half",
          "fig4_layer_flow", needs=("late",)),
    Claim("C2 steps", "Where the answer is right, later steps rest on the question and on earlier steps.",
          "adjusted right over wrong", ("grounded", *COVARIATES), 0.0, "above",
          "the difference, right over wrong, of the log odds of the share of deep flow into late steps that comes from "
          "question and earlier steps, adjusted for log NLL, log length and steps, in SD,", "fig5_step_flow",
          needs=("late",)),
    Claim("C3", "C1 and C2 occur together on an instance.", "risk difference", ("question_peak", "log_row_share"), 0.0,
          "above", "the share of instances with a deep row share above its median, where the peak ratio on the "
          "question is above its median, minus that share elsewhere,", "fig7_cooccurrence", (-1.0, 1.0),
          needs=("late",)),
    Claim("C4", "The late share tells harmed instances apart.", "auroc", ("late_share", "harmed"), 0.5, "above",
          "the AUROC of the late share against 'right when instructed, wrong with the prompt'", "fig6_trigger",
          (0.0, 1.0), needs=("late", "harmed")),
    Claim("C4 wrong", "The late share tells wrong answers apart.", "auroc", ("late_share", "wrong"), 0.5, "above",
          "the AUROC of the late share against 'PT was wrong'", "fig6_trigger", (0.0, 1.0), needs=("late",)),
    Claim("C5", "Corruption where triggered lifts accuracy over prompt tuning.", "gain", ("dpc",), 0.0, "above",
          "the accuracy of dpc minus that of pt", "tab1_accuracy", (-1.0, 1.0), PAPER_GAIN, REGIME_AND_TRIGGER),
    Claim("C5 random", "Random corruption hurts.", "gain", ("random",), 0.0, "below",
          "the accuracy of random minus that of pt", "tab1_accuracy", (-1.0, 1.0), -0.142, REGIME_AND_TRIGGER),
    Claim("C5 little", "Corruption without the trigger changes the accuracy little.", "gain", ("always",),
          PAPER_GAIN, "within", "the accuracy of always minus that of pt", "tab1_accuracy", (-1.0, 1.0),
          needs=("late", "harmed")),
    Claim("C5 always", "Corruption without the trigger gains less than corruption where triggered.", "gain",
          ("dpc_over_always",), 0.0, "above", "the accuracy of dpc minus that of always", "tab1_accuracy", (-1.0, 1.0),
          0.018, REGIME_AND_TRIGGER),
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
        The frame `verdicts` of `schema.py`, one row per task and claim. The verdict is `not testable` where no prompt
        has the problems, outcomes or methods that the claim needs (numbers are NaN) or a method fired too rarely.

    Raises:
        DPCInterpError: no results, or two of one task with the same prompt.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, dpc.load_problems("story", n=4), prompt, [], rule=rule, progress=False)
        >>> set(dpc.verdicts([results], model="reasoner")["verdict"])  # four problems are too few
        {'not testable'}
    """
    if not results:
        raise DPCInterpError("there are no results to judge; evaluate some first")
    check_distinct_prompts(results)
    claims = [claim for claim in CLAIMS if claim.name != "C1 own" or controls is not None]
    rows, measured = [], _measures_by_task(results, controls)
    lacks_by_task = {
        str(row["task"]): {
            **obstacles(row),
            "trigger": trigger_obstacle([result.rule for result in results if result.task == row["task"]]),
            "start": start_obstacle(controls, str(row["task"])),
        }
        for _, row in regime(results).iterrows()
    }
    for task, tables in measured.items():
        problems = pd.Index(sorted(set().union(*(table.index for table in tables))))
        weights = resamples(len(problems), seed=seed)  # every prompt and claim sees the same resampled problems
        prompts = [
            _Measured(problems.get_indexer(table.index), {name: table[name].to_numpy(float) for name in COLUMNS})
            for table in tables
        ]
        lacks = lacks_by_task[task]
        shifts = redrawn_gains([result for result in results if result.task == task], seed=seed)
        rows += [{"model": model, "task": task, **_judge(claim, prompts, lacks, weights, shifts)} for claim in claims]
    frame = pd.DataFrame(rows)
    return conform(frame.assign(p_holm=holm(frame["p"].to_numpy(float))), "verdicts")


def _measures_by_task(results: Sequence[Results], controls: pd.DataFrame | None) -> dict[str, list[pd.DataFrame]]:
    """`measures` of each prompt, by task."""
    tables: dict[str, list[pd.DataFrame]] = {}
    for result in results:
        rows = controls
        if controls is not None:
            rows = controls[(controls["task"] == result.task) & (controls["prompt"] == result.prompt)]
        tables.setdefault(result.task, []).append(measures(result, rows))
    return tables


def _judge(
    claim: Claim, prompts: list[_Measured], lacks: Mapping[str, str], weights: Array, shifts: Array
) -> dict[str, object]:
    """One row of the frame: the effect over the prompts that have enough problems and outcomes."""
    usable = [known for prompt in prompts if (known := prompt.known(claim)).is_enough(claim)]
    estimate, n = UNKNOWN, 0
    if usable and claim.effect == "gain":
        estimate, n = _gain_over_prompts(claim.columns[0], usable, weights.shape[1])
        if claim.columns[0] in ("dpc", "dpc_over_always"):
            estimate = widened(estimate, shifts)
    elif usable:
        estimate, n = _estimate(claim, usable, weights)
    low, high = np.clip([estimate.low, estimate.high], *claim.bounds)
    reasons = [*(lacks[need] for need in claim.needs), _why_not_testable(claim, usable, estimate)]
    reason = "; ".join(filter(None, reasons))
    nearest, farthest = claim.distances(low, high)
    verdict = "holds" if nearest > 0 else "fails" if farthest < 0 else "undecided"
    return {
        "claim": claim.name,
        "verdict": "not testable" if reason else verdict,
        "reason": reason,
        "effect": estimate.value,
        "low": low,
        "high": high,
        "null": claim.null,
        "side": claim.side,
        "excludes_paper": bool(claim.distances(claim.paper, claim.paper)[0] > farthest),
        "p": np.nan if claim.side == "within" else estimate.p,  # that of no effect, which is not the null there
        "df": estimate.df,
        "n": n,
        "n_prompts": len(usable),
        "rule": claim.rule,
        "figure": claim.figure,
    }


def _gain_over_prompts(column: str, prompts: list[_Measured], n_problems: int) -> tuple[Gain, int]:
    """The gain of a method, and the number of problems, which every prompt answered."""
    changes = np.full((n_problems, len(prompts)), np.nan)
    for k, prompt in enumerate(prompts):
        changes[prompt.problems, k] = prompt.columns[column]
    changes = changes[~np.isnan(changes).any(axis=1)]
    return (gain(changes), len(changes)) if len(changes) else (UNKNOWN, 0)


def _estimate(claim: Claim, prompts: list[_Measured], weights: Array) -> tuple[Gain, int]:
    """The mean effect over prompts, and the number of problems."""
    values, draws = [], []
    used = np.zeros(weights.shape[1], dtype=bool)
    for prompt in prompts:
        wrong = prompt.columns["correct"] == 0
        columns = np.column_stack([prompt.columns[name] for name in claim.columns])
        value = _effect(claim, columns, wrong, np.ones((1, len(wrong))))[0]
        if np.isfinite(value):  # NaN where nothing varies, for example a constant column
            used[prompt.problems] = True
            values.append(value)
            draws.append(_effect(claim, columns, wrong, weights[:, prompt.problems]))
    if not values:
        return UNKNOWN, 0
    estimate = pool_over_prompts(np.array(values), np.stack(draws, axis=1))
    return Gain(estimate.value, *estimate.interval(), estimate.p(claim.null), estimate.df), int(used.sum())


def _why_not_testable(claim: Claim, prompts: list[_Measured], estimate: Gain) -> str:
    """Why the experiment cannot speak of the claim, or nothing."""
    if not prompts:
        return "too few problems, outcomes or methods"
    if not np.isfinite(estimate.value):
        return "nothing varies"
    if claim.effect == "gain":
        method = claim.columns[0] if claim.columns[0] in METHODS else "dpc"
        fired = int(sum(prompt.columns[f"{method}_fired"].sum() for prompt in prompts))
        if fired < MIN_FIRED:
            return f"{method} fired on {fired} of {sum(len(prompt.problems) for prompt in prompts)} answers"
    return ""


def _effect(claim: Claim, values: Array, wrong: Flags, weights: Array) -> Array:
    """The claim's effect of `values` [n, n_columns] in each resample, [n_resamples]."""
    if claim.effect == "mean":
        return weighted_mean(values, weights)[:, 0]
    if claim.effect == "risk difference":
        peaked, deep = (values > np.median(values, axis=0)).T
        rates = [weights[:, group] @ deep[group] / weights[:, group].sum(axis=1) for group in (peaked, ~peaked)]
        return np.asarray(rates[0] - rates[1] if 0 < peaked.sum() < len(peaked) else np.full(len(weights), np.nan))
    if claim.effect == "auroc":
        return weighted_ranking(values[:, 0], values[:, 1] > 0, weights)[:, 0]
    sign = 1.0 if claim.effect.endswith("wrong over right") else -1.0
    if claim.effect.startswith("adjusted"):
        strata = np.minimum(values[:, 3], MAX_STRATUM)
        return sign * weighted_adjusted_difference(values[:, 0], wrong, values[:, 1:3], strata, weights)
    return sign * weighted_hedges_g(values[wrong], values[~wrong], weights[:, wrong], weights[:, ~wrong])[:, 0]
