"""What the claims are about, one row a problem of one evaluated prompt."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.analysis.accumulation import deep_layers
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.evaluation.methods import Results

COLUMNS = ["correct", "peak_ratio", "own_ratio", "late_share", "deep_flow", "grounded", "dpc", "random", "always"]


def measures(results: Results, controls: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the claims are about, one row a problem; NaN where a problem has no rationale or no step to measure.

    Returns:
        Indexed by `instance`: correct (prompt tuning), peak_ratio, own_ratio (minus that of the untrained control),
        late_share, deep_flow, grounded (see `grounded_share`), and dpc, random, always: right minus right by pt.
    """
    right = results.instances.assign(right=results.instances["correct"].astype(float)).pivot_table(
        index="instance", columns="method", values="right"
    )
    frame = pd.DataFrame({"correct": right["pt"] == 1})
    frame = frame.join(results.statistics.set_index("instance")[["peak_ratio", "late_share", "deep_flow"]])
    frame["grounded"] = grounded_share(results.analysis)
    for method in ("dpc", "random", "always"):
        frame[method] = right[method] - right["pt"] if method in right else np.nan
    frame["own_ratio"] = np.nan
    if controls is not None and len(controls):
        ratio = controls.pivot_table(index="instance", columns="condition", values="peak_ratio")
        frame["own_ratio"] = ratio["trained"] - ratio["untrained"]
    return frame[COLUMNS]


def grounded_share(found: Analysis) -> pd.Series:
    """By instance, how far late steps rest on question and earlier steps, in the deep layers.

    Of each step in the second half, the first one left out: (Q + E) / (P + Q + E), with the mean flow from prompt P,
    question Q and earlier steps E; then the mean over those steps. Instances of one step are not there.
    """
    flow = found.flow
    flow = flow[flow["layer"].isin(deep_layers(found.n_layers)) & (flow["destination"] == "rationale")]
    within = (flow["source"] == "rationale") & (flow["source_step"] >= flow["step"])
    flow = flow[(flow["step"] >= 1) & ~within]
    last = flow.groupby("instance")["step"].transform("max")
    late = flow[flow["step"] >= (last + 1) / 2]
    by_source = late.pivot_table(index=["instance", "step"], columns="source", values="value", aggfunc="mean")
    by_source = by_source.reindex(columns=["prompt", "question", "rationale"])
    share = 1 - by_source["prompt"] / by_source.sum(axis=1)
    return share.groupby("instance").mean()
