"""The quantities that the claims are about, one row per problem of one evaluated prompt.

Flow is heavy-tailed: a few instances hold most of its sum. So ratios and flows are compared as logarithms, shares as
log odds (docs/method.md, section 8.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpc_interp.analysis.accumulation import by_virtual_token, chance_peak_ratio, evenness, peaks_of
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.evaluation.evaluate import Results

METHODS = ("dpc", "random", "always")
"""Methods whose changes of answers are measured."""
FROM_STATISTICS = ("late_share", "log_flow", "log_row_share", "log_nll", "log_length")
COLUMNS = (
    *("correct", "wrong", "harmed", "peak_over_chance", "own_ratio", "question_peak", "question_evenness"),
    *FROM_STATISTICS,
    *("n_steps", "grounded", *METHODS, "dpc_over_always", *(f"{method}_fired" for method in METHODS)),
)


def measures(results: Results, controls: pd.DataFrame | None = None) -> pd.DataFrame:
    """Collect the quantities that the claims are about.

    Args:
        results: results of one evaluated prompt.
        controls: `control_peaks` of the same prompt; None, or without `untrained`: `own_ratio` is NaN.

    Returns:
        One row per problem, indexed by `instance`.

        - correct: of prompt tuning; wrong is its opposite. harmed: right when instructed and wrong with the prompt; NaN
          without `instruct`.
        - peak_over_chance: log of the peak ratio over its chance level. own_ratio: log of the trained prompt's peak
          ratio over that of the vectors that its tuning started from. question_peak: log of the peak ratio of the flow
          into the question. question_evenness: its evenness over virtual tokens.
        - late_share: R. log_flow, log_row_share: log of the deep flow from the prompt into the late half, and of its
          share of the row. grounded: log odds of `grounded_share`. log_nll, log_length, n_steps: of the rationale.
        - dpc, random, always: 1 where the method fixes the answer of pt, -1 where it breaks it, 0 elsewhere; NaN where
          it was not evaluated. dpc_over_always: the same of dpc against always. dpc_fired and so on: whether it fired.

        Statistics are NaN for a problem without a rationale.
    """
    answers = results.instances.astype({"correct": float, "fired": float})
    by_method = answers.pivot(index="instance", columns="method", values=["correct", "fired"])
    correct, fired = by_method["correct"], by_method["fired"]
    stats = results.statistics.set_index("instance")
    unknown = pd.Series(np.nan, index=correct.index)
    columns: dict[str, pd.Series] = {"correct": correct["pt"], "wrong": 1 - correct["pt"], "harmed": unknown}
    if "instruct" in correct:
        columns["harmed"] = (correct["instruct"] > correct["pt"]).astype(float)
    logs = {"log_flow": "deep_flow", "log_row_share": "row_share", "log_nll": "nll", "log_length": "length"}
    columns |= {"late_share": stats["late_share"]} | {name: _log(stats[column]) for name, column in logs.items()}
    columns |= accumulation_measures(results.analysis, stats["peak_ratio"], results.options)
    share = grounded_share(results.analysis, results.options.deep)
    columns |= {"grounded": _log(share) - _log(1 - share), "n_steps": rationale_steps(results.analysis)}
    for method in METHODS:
        columns[method] = correct[method] - correct["pt"] if method in correct else unknown
        columns[f"{method}_fired"] = fired[method] if method in fired else 0 * correct["pt"]
    columns["dpc_over_always"] = columns["dpc"] - columns["always"]
    columns["own_ratio"] = unknown
    if controls is not None and len(controls):
        ratio = controls.pivot(index="instance", columns="condition", values="peak_ratio")
        if "untrained" in ratio:
            columns["own_ratio"] = _log(ratio["trained"]) - _log(ratio["untrained"])
    return pd.DataFrame({name: columns[name].reindex(correct.index) for name in COLUMNS})


def accumulation_measures(analysis: Analysis, peak_ratio: pd.Series, options: Options) -> dict[str, pd.Series]:
    """The columns of `measures` about accumulation.

    Args:
        analysis: result of `analyse`.
        peak_ratio: of the flow into question and rationale, by instance.
        options: of the evaluation: shallow layers, and whether a sink can be the peak.
    """
    layers: Sequence[int] = options.shallow or shallow_layers(analysis.n_layers)
    accumulation, exclude_sink = analysis.accumulation, options.exclude_sink
    chance = chance_peak_ratio(by_virtual_token(accumulation, layers, exclude_sink=exclude_sink))
    into_question = by_virtual_token(accumulation, layers, "into_question", exclude_sink=exclude_sink)
    return {
        "peak_over_chance": _log(peak_ratio) - np.log(chance),
        "question_peak": _log(peaks_of(into_question)["peak_ratio"]),
        "question_evenness": evenness(into_question),
    }


def _log(values: pd.Series) -> pd.Series:
    """The logarithm; of 0, that of the smallest float32."""
    logs = np.log(values.to_numpy(float).clip(min=float(np.finfo(np.float32).tiny)))
    return pd.Series(logs, index=values.index)


def rationale_steps(analysis: Analysis) -> pd.Series:
    """The number of rationale steps, indexed by `instance`.

    Args:
        analysis: result of `analyse`.
    """
    flow = analysis.flow
    steps = flow.loc[(flow["destination"] == "rationale") & flow["step"].notna(), ["instance", "step"]]
    return steps.groupby("instance")["step"].max().astype(float) + 1


def grounded_share(analysis: Analysis, deep: Sequence[int] | None = None) -> pd.Series:
    """How much late steps rest on the question and on earlier steps, in the deep layers.

    For each step of the second half, the first step excluded, the share is (Q + E) / (P + Q + E), where P, Q and E are
    the mean flow from the prompt, the question and the earlier steps.

    Args:
        analysis: result of `analyse`.
        deep: deep layers; None: the last third.

    Returns:
        The mean share over those steps, indexed by `instance`; instances of one step are missing.
    """
    flow = analysis.flow
    flow = flow[flow["layer"].isin(deep or deep_layers(analysis.n_layers)) & (flow["destination"] == "rationale")]
    # a missing step stands for the whole segment: it is NaN here, and rows with it do not count
    flow = flow.astype({"source_step": float, "step": float})
    within_step = (flow["source"] == "rationale") & ~(flow["source_step"] < flow["step"])
    flow = flow[(flow["step"] >= 1) & ~within_step]
    last_step = flow.groupby("instance")["step"].transform("max")
    late = flow[flow["step"] >= (last_step + 1) / 2]
    by_source = late.groupby(["instance", "step", "source"])["value"].mean().unstack()
    by_source = by_source.reindex(columns=["prompt", "question", "rationale"])
    share = 1 - by_source["prompt"] / by_source.sum(axis=1)
    return share.groupby("instance").mean()
