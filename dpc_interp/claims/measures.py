"""The quantities that the claims are about, one row per problem of one evaluated prompt."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.layers import deep_layers
from dpc_interp.evaluation.evaluate import Results

COLUMNS = ["correct", "peak_ratio", "own_ratio", "late_share", "deep_flow", "grounded", "dpc", "random", "always"]


def measures(results: Results, controls: pd.DataFrame | None = None) -> pd.DataFrame:
    """Collect the quantities that the claims are about.

    Args:
        results: results of one evaluated prompt.
        controls: `control_peaks` of the same prompt; None: `own_ratio` is NaN.

    Returns:
        One row per problem, indexed by `instance`: correct (of prompt tuning); peak_ratio, late_share, deep_flow (see
        `trigger_statistics`); own_ratio (the trained prompt's peak ratio minus that of the untrained one); grounded
        (see `grounded_share`); dpc, random, always (1: the method fixes the answer of pt, -1: it breaks it, 0: neither;
        NaN where the method was not evaluated). Statistics are NaN for a problem without a rationale.
    """
    correct = results.instances.assign(correct=results.instances["correct"].astype(float)).pivot_table(
        index="instance", columns="method", values="correct"
    )
    frame = pd.DataFrame({"correct": correct["pt"] == 1})
    frame = frame.join(results.statistics.set_index("instance")[["peak_ratio", "late_share", "deep_flow"]])
    frame["grounded"] = grounded_share(results.analysis)
    for method in ("dpc", "random", "always"):
        frame[method] = correct[method] - correct["pt"] if method in correct else np.nan
    frame["own_ratio"] = np.nan
    if controls is not None and len(controls):
        ratio = controls.pivot_table(index="instance", columns="condition", values="peak_ratio")
        frame["own_ratio"] = ratio["trained"] - ratio["untrained"]
    return frame[COLUMNS]


def grounded_share(analysis: Analysis) -> pd.Series:
    """How much late steps rest on the question and on earlier steps, in the deep layers.

    For each step of the second half, the first step excluded, the share is (Q + E) / (P + Q + E), where P, Q and E are
    the mean flow from the prompt, the question and the earlier steps.

    Args:
        analysis: result of `analyse`.

    Returns:
        The mean share over those steps, indexed by `instance`; instances of one step are missing.
    """
    flow = analysis.flow
    flow = flow[flow["layer"].isin(deep_layers(analysis.n_layers)) & (flow["destination"] == "rationale")]
    # a missing step stands for the whole segment: comparisons with it are NA, and those rows do not count
    within_step = (flow["source"] == "rationale") & ~(flow["source_step"] < flow["step"]).fillna(False)
    flow = flow[(flow["step"] >= 1).fillna(False) & ~within_step]
    last_step = flow.groupby("instance")["step"].transform("max")
    late = flow[flow["step"] >= (last_step + 1) / 2]
    by_source = late.pivot_table(index=["instance", "step"], columns="source", values="value", aggfunc="mean")
    by_source = by_source.reindex(columns=["prompt", "question", "rationale"])
    share = 1 - by_source["prompt"] / by_source.sum(axis=1)
    return share.groupby("instance").mean()
