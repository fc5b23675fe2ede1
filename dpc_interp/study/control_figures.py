"""fig8 to fig11: the controls of the claims (docs/method.md, section 7).

Each function draws one figure from frames.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from dpc_interp import plots
from dpc_interp.claims.causal_scores import curve_areas, rank_correlation, redundancy_ratio
from dpc_interp.execution.engine import Frames
from dpc_interp.stats.bootstrap import mean_interval
from dpc_interp.study.evaluated import EvaluatedPrompt
from dpc_interp.study.output import Drawing

RATES = tuple(np.linspace(0, 1, 21).round(2).tolist())
"""Firing rates of the curves in fig9."""


def fig8_sink_control(evaluated: EvaluatedPrompt, sinks: pd.DataFrame, summary: pd.DataFrame) -> Drawing:
    """Draw accumulation under the trained prompt and its controls.

    Args:
        evaluated: the first prompt.
        sinks: `sink_controls` of the first prompt; its accumulation is drawn by virtual token.
        summary: `sink_summary` of all prompts; their peak ratios are drawn.
    """
    heights = [2.6, 2.6 + 0.25 * max(0, summary["prompt"].nunique() - 3)]  # room for each prompt and its legend
    figure = plt.figure(figsize=(plots.COLUMN_WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
    plots.plot_sink_control(sinks, shallow=evaluated.shallow, ax=upper.subplots())
    plots.plot_sink_ratios(summary, ax=lower.subplots())
    untrained = summary[summary["condition"] == "untrained"]
    ratios = "; ".join(
        f"{row.prompt} {row.own_ratio:.2f} [{row.own_low:.2f}, {row.own_high:.2f}]" for row in untrained.itertuples()
    )
    own = f"Peak ratio of the trained prompt over that of the untrained one: {ratios}."
    if untrained.empty:
        own = "No prompt records what its tuning started from, so that there is no untrained one."
    caption = f"the same transcripts after other prompts, teacher-forced. {own}"
    frames, tables = {"fig8_sink_control": sinks}, {"fig8_sink_control_ratios": summary}
    return Drawing("fig8_sink_control", figure, caption, frames, tables)


def fig9_triggers(compared: pd.DataFrame, by_rate: pd.DataFrame) -> Drawing:
    """Draw the AUROC of each trigger against both outcomes, and the gain of corruption by firing rate.

    Args:
        compared: `compare_triggers` at the error rate of PT; it is saved as tab3_triggers, not here.
        by_rate: `compare_triggers` at the rates `RATES`.
    """
    figure, axes = plt.subplots(2, 1, figsize=(plots.COLUMN_WIDTH, 6.4), layout="constrained")
    plots.plot_triggers(compared, ax=axes[0])
    plots.plot_trigger_gain(by_rate, ax=axes[1])
    rate, n = compared["rate"].iloc[0], compared["n_calibration"].iloc[0]
    caption = (
        f"thresholds from {n} validation rows, where each trigger fires as often as PT is wrong, {rate:.1%}; 95% "
        "intervals over problems, the prompts of a problem kept together."
    )
    return Drawing("fig9_triggers", figure, caption, {"fig9_triggers_by_rate": by_rate})


def fig10_causal(effects: Frames) -> Drawing:
    """Draw the effect of knocking out edges, by layer and by share, and the sanity checks of the saliency.

    Args:
        effects: the frames knockouts, groups, redundancy and curves of `causal_edges`, and sanity of `saliency_sanity`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(2 * plots.COLUMN_WIDTH, 5.1), layout="constrained")
    plots.plot_knockout_by_layer(effects["knockouts"], ax=axes[0, 0])
    plots.plot_redundancy(effects["redundancy"], ax=axes[0, 1])
    plots.plot_deletion_curves(effects["curves"], ax=axes[1, 0])
    plots.plot_sanity(effects["sanity"], ax=axes[1, 1])
    ranks = rank_correlation(effects["groups"])
    areas = [
        curve_areas(effects["curves"], absolute=absolute)
        .query("kind == 'deletion' and order == 'saliency'")["advantage"]
        .to_numpy(float)
        for absolute in (True, False)
    ]
    measures = {
        "Spearman of flow and size of the loss change": ranks["absolute"].to_numpy(float),
        "of flow and signed change": ranks["signed"].to_numpy(float),
        "advantage of deletion by saliency over random in nats, by size": areas[0],
        "signed": areas[1],
    }
    text = "; ".join(f"{name} {_mean_text(values)}" for name, values in measures.items())
    n_top = len(effects["redundancy"]["tokens"].iloc[0].split())
    caption = (
        f"{effects['knockouts']['instance'].nunique()} test instances, teacher-forced. {text}. Top right: the {n_top} "
        "virtual tokens of largest flow at a layer, their edges removed together and one by one."
    )
    frames = {"fig10_causal": effects["knockouts"]}
    frames |= {f"fig10_causal_{name}": effects[name] for name in ("groups", "redundancy", "curves", "sanity")}
    tables = {"fig10_causal_redundancy_ratio": redundancy_ratio(effects["redundancy"])}
    return Drawing("fig10_causal", figure, caption, frames, tables)


def fig11_sensitivity(sweeps: Frames) -> Drawing:
    """Draw each option on both splits.

    Args:
        sweeps: the frame sensitivity of `option_sensitivity`.
    """
    measured = sweeps["sensitivity"].query("reason == ''")  # without a trigger there is nothing to draw
    panels = plots.plot_sensitivity(measured)
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    rows = sweeps["sensitivity"].query("split == 'test'")
    n = f"{rows['n'].iloc[0]} test and {rows['n_validation'].iloc[0]} validation problems"
    caption = f"{n}; one option at a time, grey: selected on validation. See also fig11_single_tokens."
    return Drawing("fig11_sensitivity", figure, caption, {"fig11_sensitivity": sweeps["sensitivity"]})


def fig11_single_tokens(sweeps: Frames) -> Drawing:
    """Draw one virtual token masked at a time.

    Args:
        sweeps: the frame tokens of `single_tokens`.
    """
    figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.4), layout="constrained")
    plots.plot_single_tokens(sweeps["tokens"], ax=ax)
    caption = "accuracy with one virtual token masked in every answer, less that of pt."
    return Drawing("fig11_single_tokens", figure, caption, {"fig11_single_tokens": sweeps["tokens"]})


def _mean_text(values: np.ndarray) -> str:
    """`0.7 [0.64, 0.75]`: the mean of the finite values with its interval over instances."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return "not measured"
    mean, low, high = (float(bound[0]) for bound in mean_interval(finite[:, None]))
    return f"{mean:.2g} [{low:.2g}, {high:.2g}]"
