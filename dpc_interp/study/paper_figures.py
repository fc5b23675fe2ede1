"""fig1 to fig7: what happens between prompt, question and rationale. One function draws one figure.

`DrawFigures` writes all of them; to add a figure, write such a function and add it to `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dpc_interp import plots
from dpc_interp.analysis.analyse import saliency_map
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger
from dpc_interp.errors import OneOutcomeError
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.evaluated import EvaluatedPrompt
from dpc_interp.study.output import Drawing, draw_or_explain

RANKED_STATISTICS = ("late_share", "deep_flow", "peak_ratio", "nll", "length")
"""Statistics in the ROC and precision-recall panels of fig6."""
CASE_COLUMNS = 52
"""Characters in a line of fig1."""


@dataclass(frozen=True)
class DrawFigures:
    """The job that draws fig1 to fig7 of one evaluated prompt.

    Attributes:
        evaluated: with the method `instruct` among its results.
        folder: folder of the figures; it is created.
    """

    evaluated: EvaluatedPrompt
    folder: Path

    def __call__(self, model: HookedModel) -> list[str]:
        """A caption for each figure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with plots.style_context():
            return [
                draw_or_explain(draw.__name__, partial(draw, self.evaluated, model), self.folder)
                for draw in FIGURES.values()
            ]


def fig1_case(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw the flow from the prompt to each rationale token, of an instance it breaks and of one it fixes."""
    outcomes = _prompt_effects(evaluated)
    cases = {title: _median_case(evaluated, instances) for title, instances in outcomes.items()}
    tokens = evaluated.results.analysis.tokens
    parts = [
        tokens[tokens["instance"] == instance].assign(case=title)
        for title, instance in cases.items()
        if instance is not None
    ]
    frame = pd.concat(parts) if parts else tokens.iloc[:0].assign(case="")
    # one scale for both cases
    deep = frame[frame["layer"].isin(evaluated.deep)]
    vmax = float(deep.groupby(["instance", "position"])["value"].mean().max())
    heights = [_case_inches(frame[frame["instance"] == instance]) for instance in cases.values()]
    figure, axes = plt.subplots(
        2, 1, figsize=(plots.COLUMN_WIDTH, sum(heights) + 0.6), height_ratios=heights, layout="constrained"
    )
    drawn = []
    for ax, (title, instance) in zip(axes, cases.items(), strict=True):
        if instance is None:
            ax.set_axis_off()
            ax.text(0, 0.5, f"no instance is\n{title}", transform=ax.transAxes)
            continue
        plots.plot_case(
            frame[frame["instance"] == instance],
            ax=ax,
            layers=evaluated.deep,
            title=title,
            vmax=vmax,
            columns=CASE_COLUMNS,
            colorbar=False,
        )
        drawn.append(ax)
    if drawn:
        plots.add_colorbar(drawn, label="mean flow from the prompt", location="bottom", aspect=40, extend="min")
    counts = "; ".join(f"{title}: {int(holds.sum())} of {len(holds)}" for title, holds in outcomes.items())
    caption = f"deep-layer prompt flow to each token; median late share, 2 steps and more. {counts}."
    return Drawing("fig1_case", figure, caption, {"fig1_case": frame})


def fig2_saliency_maps(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw saliency maps, destination x source, shallow and deep, of a right and a wrong instance."""
    runs = {run.problem.id: run for run in evaluated.results.runs}
    stats = evaluated.results.statistics
    # two steps: long enough to have an earlier step, short enough to read
    stats = stats[[runs[instance].problem.n_steps == 2 for instance in stats["instance"]]]
    cases = {
        outcome: _median_instance(stats[stats["correct"] == correct].set_index("instance"), "deep_flow")
        for outcome, correct in (("right", True), ("wrong", False))
    }
    layer_ranges = {"shallow": evaluated.shallow, "deep": evaluated.deep}
    figure, axes = plt.subplots(2, 2, figsize=(2 * plots.COLUMN_WIDTH, 6.2), layout="constrained")
    frames = []
    for row, (outcome, instance) in enumerate(cases.items()):
        for column, (depth, layers) in enumerate(layer_ranges.items()):
            ax = axes[row, column]
            if instance is None:
                ax.set_axis_off()
                ax.text(0, 0.5, f"no {outcome} answer\nhas two steps", transform=ax.transAxes)
                continue
            reduction = evaluated.results.options.head_reduction
            map_ = saliency_map(model, runs[instance], evaluated.prompt, head_reduction=reduction)
            values = map_.values[list(layers)].mean(0)
            plots.plot_saliency_map(values.numpy(), spans=map_.segments.spans(), ax=ax)
            ax.set_title(f"{outcome}, {depth} layers")
            destinations, sources = values.nonzero(as_tuple=True)
            edges = {"destination": destinations.numpy(), "source": sources.numpy()}
            flow = pd.DataFrame({**edges, "value": values[destinations, sources].numpy()})
            frames.append(flow.assign(instance=instance, outcome=outcome, layers=depth))
    caption = "destination x source; of each outcome the two-step instance of median deep flow."
    frame = pd.concat(frames) if frames else pd.DataFrame()
    return Drawing("fig2_saliency_maps", figure, caption, {"fig2_saliency_maps": frame})


def fig3_accumulation(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw accumulation by layer and virtual token, and its profile over the shallow layers."""
    frame, sinks = evaluated.results.analysis.accumulation, evaluated.sinks
    figure = plt.figure(figsize=(plots.COLUMN_WIDTH, 4.2), layout="constrained")
    # subfigures, so that the colour bar of the upper panel does not narrow the lower one
    upper, lower = figure.subfigures(2, 1, squeeze=False).flat
    plots.plot_accumulation(frame, ax=upper.subplots())
    plots.plot_accumulation_profile(frame, shallow=evaluated.shallow, exclude=sinks, ax=lower.subplots())
    ratio = evaluated.results.statistics["peak_ratio"]
    left_out = ", ".join(map(str, sinks)) or "none"
    caption = f"the peak leaves out the sinks ({left_out}). Mean peak ratio {ratio.mean():.2f}."
    return Drawing("fig3_accumulation", figure, caption, {"fig3_accumulation": frame})


def fig4_layer_flow(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw S_pq and S_pr by layer, right against wrong: geometric means on the left, means on the right."""
    analysis = evaluated.results.analysis
    flow = analysis.flow[(analysis.flow["source"] == "prompt") & analysis.flow["step"].isna()]
    frame = flow.merge(analysis.instances[["instance", "correct"]], on="instance")
    figure, axes = plt.subplots(2, 2, figsize=(2 * plots.COLUMN_WIDTH, 4.9), layout="constrained", sharex=True)
    effects = []
    for row, destination in zip(axes, ("question", "rationale"), strict=True):
        for ax, scale in zip(row, ("log", "linear"), strict=True):
            log = scale == "log"
            plots.plot_layer_flow(frame, source="prompt", destination=destination, log=log, ax=ax)
            table = plots.layer_effect_sizes(frame, source="prompt", destination=destination, log=log)
            table.insert(0, "scale", scale)
            table.insert(0, "destination", destination)
            effects.append(table)
    for ax in axes[0]:
        ax.set_xlabel("")
    caption = (
        "geometric means (left) and means (right) with 95% bootstrap bands; Hedges' g of wrong over right, bold where "
        "its interval leaves 0 out."
    )
    tables = {"fig4_layer_flow_effects": pd.concat(effects, ignore_index=True)}
    return Drawing("fig4_layer_flow", figure, caption, {"fig4_layer_flow": frame}, tables)


def fig5_step_flow(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw the flow from the prompt, the question and earlier steps into each rationale step."""
    analysis = evaluated.results.analysis
    flow = analysis.flow[analysis.flow["step"].notna() & analysis.flow["layer"].isin(evaluated.deep)]
    frame = flow.merge(analysis.instances[["instance", "correct"]], on="instance")
    figure, axes = plt.subplots(1, 2, figsize=(2 * plots.COLUMN_WIDTH, 2.8), layout="constrained")
    for ax, log in zip(axes, (True, False), strict=True):
        plots.plot_step_flow(frame, layers=evaluated.deep, log=log, ax=ax)
    caption = (
        "deep layers, geometric means on a log scale (left) and means (right), 95% bootstrap bands; longer problems "
        "have more steps."
    )
    return Drawing("fig5_step_flow", figure, caption, {"fig5_step_flow": frame})


def fig6_trigger(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw the trigger statistic by outcome, and ROC and precision-recall curves."""
    stats, rule = evaluated.results.statistics, evaluated.results.rule
    figure, axes = plt.subplots(3, 1, figsize=(plots.COLUMN_WIDTH, 8.6), layout="constrained")
    plots.plot_trigger_distribution(stats, statistic=rule.statistic, threshold=rule.threshold, ax=axes[0])
    plots.plot_roc(stats, statistics=RANKED_STATISTICS, ax=axes[1])
    plots.plot_precision_recall(stats, statistics=RANKED_STATISTICS, ax=axes[2])
    caption = f"positive = PT was wrong. {_rule_text('alpha', rule)}"
    tables = {"fig6_trigger_scores": evaluated.results.triggers}
    return Drawing("fig6_trigger", figure, caption, {"trigger_statistics": stats}, tables)  # fig7 shows them too


def fig7_cooccurrence(evaluated: EvaluatedPrompt, model: HookedModel) -> Drawing:
    """Draw accumulation against late share, with both thresholds."""
    stats, rule = evaluated.results.statistics, evaluated.results.rule
    if evaluated.results.validation.empty:
        raise OneOutcomeError("every validation answer has the same outcome, so that no threshold can be calibrated")
    kappa = calibrate_trigger(evaluated.results.validation, "youden", "peak_ratio")
    figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.9), layout="constrained")
    plots.plot_cooccurrence(stats, kappa=kappa.threshold, alpha=rule.threshold, ax=ax)
    caption = f"{_rule_text('kappa', kappa)} {_rule_text('alpha', rule)}"
    tables = {"fig7_cooccurrence_table": plots.cooccurrence_table(stats, kappa.threshold, rule.threshold)}
    return Drawing("fig7_cooccurrence", figure, caption, tables=tables)


FIGURES: Mapping[str, Callable[[EvaluatedPrompt, HookedModel], Drawing]] = {
    "case": fig1_case,
    "saliency_maps": fig2_saliency_maps,
    "accumulation": fig3_accumulation,
    "layer_flow": fig4_layer_flow,
    "step_flow": fig5_step_flow,
    "trigger": fig6_trigger,
    "cooccurrence": fig7_cooccurrence,
}
"""Name -> the function that draws the figure, in the order of their numbers."""


def _prompt_effects(evaluated: EvaluatedPrompt) -> dict[str, pd.Series]:
    """What the prompt does to the answer -> whether it does so, by instance."""
    correct = evaluated.results.instances.pivot_table(
        index="instance", columns="method", values="correct", aggfunc="first"
    ).astype(bool)
    return {
        "right when instructed, wrong with the prompt": correct["instruct"] & ~correct["pt"],
        "wrong when instructed, right with the prompt": ~correct["instruct"] & correct["pt"],
    }


def typical_instance(evaluated: EvaluatedPrompt) -> str | None:
    """The instance that a report shows interactively; None if none was analysed.

    Args:
        evaluated: the first prompt of a task. The instance is the first of fig1, or else that of median late share.
    """
    cases = (_median_case(evaluated, instances) for instances in _prompt_effects(evaluated).values())
    stats = evaluated.results.statistics.set_index("instance")
    return next((case for case in cases if case is not None), _median_instance(stats, "late_share"))


def _median_case(evaluated: EvaluatedPrompt, chosen: pd.Series) -> str | None:
    """Among the chosen instances of at least two steps, the one of median late share; None if there is none."""
    long = [run.problem.id for run in evaluated.results.runs if run.problem.n_steps >= 2]
    stats = evaluated.results.statistics.set_index("instance").filter(long, axis="index")
    return _median_instance(stats.loc[stats.index.isin(chosen.index[chosen])], "late_share")


def _median_instance(stats: pd.DataFrame, statistic: str) -> str | None:
    """The instance of median `statistic`; None if there is none."""
    ordered = stats.sort_values(statistic, kind="stable")
    return str(ordered.index[len(ordered) // 2]) if len(ordered) else None


def _case_inches(tokens: pd.DataFrame) -> float:
    """The height of one case with its title, or of one line if there are no tokens."""
    texts = tokens.drop_duplicates("position").sort_values("position")["token"]
    return 0.25 + (plots.case_height(list(texts), columns=CASE_COLUMNS) if len(texts) else 0.3)


def _rule_text(name: str, rule: TriggerRule) -> str:
    calibration = f"criterion {rule.criterion}, {rule.split} split, n = {rule.n}"
    return f"{name}: {rule.statistic} > {rule.threshold:.3f} ({calibration})."
