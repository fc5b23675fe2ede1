"""The paper's figures and tables: `python -m dpc_interp.figures --model reasoner --out figures/reasoner`.

Every task is evaluated with each of its prompts, one process a core; each recipe below turns frames into one figure,
written as PNG and PDF with the frame it is drawn from beside it. The first task's figures lie in `--out` itself, those
of the others in a folder of their name. Figures show the first prompt; tables pool all prompts. Stages are kept in
`runs/`, so that a stopped run goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dpc_interp import plots
from dpc_interp.analysis.analyse import saliency_map
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import load_prompt
from dpc_interp.output import save_figure
from dpc_interp.parallel import map_processes
from dpc_interp.study import Study, arguments, evaluate_study, kept_in, prompts_of, with_base
from dpc_interp.tables import tables

SHOWN = ("late_share", "deep_flow", "peak_ratio", "nll", "length")
"""Statistics in the ROC and precision-recall panels."""
CASE_COLUMNS = 52
"""Characters in a line of fig1."""


def evaluate_and_draw(
    model: str, task: str, prompt: str, n: int, n_validation: int, batch_size: int, runs: Path, folder: Path | None
) -> tuple[Study, list[str]]:
    """One study; with a folder its figures are drawn there, and their captions returned.

    Without one the bare model is left out, which is the same for all prompts of a task.
    """
    done = evaluate_study(
        model, task, prompt, n=n, n_validation=n_validation, batch_size=batch_size, runs=runs, base=folder is not None
    )
    return done, [] if folder is None else draw(done, folder)


def draw(shown: Study, folder: Path) -> list[str]:
    """All figures of one study; a caption each."""
    folder.mkdir(parents=True, exist_ok=True)
    with plots.style_context():
        return [recipe(shown, folder) for recipe in RECIPES]


def fig1_case(shown: Study, folder: Path) -> str:
    """The rationale of an instance that the prompt turned wrong, and of one it set right, by flow from the prompt."""
    outcome = shown.results.instances.pivot_table(
        index="instance", columns="method", values="correct", aggfunc="first"
    ).astype(bool)
    long = [run.problem.id for run in shown.results.runs if run.problem.n_steps >= 2]
    stats = shown.results.statistics.set_index("instance").filter(long, axis="index")
    kinds = {
        "right without the prompt, wrong with it": outcome["base"] & ~outcome["pt"],
        "wrong without the prompt, right with it": ~outcome["base"] & outcome["pt"],
    }
    chosen = {
        title: _median_instance(stats.loc[stats.index.isin(of.index[of])], "late_share") for title, of in kinds.items()
    }
    tokens = shown.results.analysis.tokens
    frame = pd.concat(
        [tokens[tokens["instance"] == i].assign(case=title) for title, i in chosen.items() if i is not None]
    )
    deep = frame[frame["layer"].isin(shown.deep)]
    vmax = deep.groupby(["instance", "position"])["value"].mean().max()
    heights = [_case_inches(frame[frame["instance"] == instance]) for instance in chosen.values()]
    figure, axes = plt.subplots(
        2, 1, figsize=(plots.COLUMN_WIDTH, sum(heights) + 0.6), height_ratios=heights, layout="constrained"
    )
    for ax, (title, instance) in zip(axes, chosen.items(), strict=True):
        if instance is None:
            ax.set_axis_off()
            ax.text(0, 0.5, f"no instance is\n{title}", transform=ax.transAxes)
        else:
            plots.plot_case(
                frame[frame["instance"] == instance],
                ax=ax,
                layers=shown.deep,
                title=title,
                vmax=vmax,
                columns=CASE_COLUMNS,
                colorbar=False,
            )
    drawn = [ax for ax, instance in zip(axes, chosen.values(), strict=True) if instance is not None]
    if drawn:
        plots.add_colorbar(drawn, label="mean flow from the prompt", location="bottom", aspect=40, extend="min")
    save_figure(figure, folder / "fig1_case", frame)
    counts = "; ".join(f"{title}: {int(of.sum())} of {len(of)}" for title, of in kinds.items())
    return f"fig1_case: deep-layer prompt flow to each token; median late share, 2 steps and more. {counts}."


def fig2_saliency_maps(shown: Study, folder: Path) -> str:
    """Destination x source, shallow and deep, of a right and a wrong instance."""
    stats = shown.results.statistics
    runs = {run.problem.id: run for run in shown.results.runs}
    stats = stats[[runs[i].problem.n_steps == 2 for i in stats["instance"]]]
    model, prompt = load_model(shown.model, device="cpu"), load_prompt(shown.prompt)
    chosen = {
        name: _median_instance(stats[stats["correct"] == right].set_index("instance"), "deep_flow")
        for name, right in (("right", True), ("wrong", False))
    }
    parts = {"shallow": shown.shallow, "deep": shown.deep}
    figure, axes = plt.subplots(2, 2, figsize=(2 * plots.COLUMN_WIDTH, 6.2), layout="constrained")
    frames = []
    for row, (name, instance) in enumerate(chosen.items()):
        for column, (part, layers) in enumerate(parts.items()):
            ax = axes[row, column]
            if instance is None:
                ax.set_axis_off()
                continue
            map_ = saliency_map(model, runs[instance], prompt)
            values = map_.values[list(layers)].mean(0)
            plots.plot_saliency_map(values.numpy(), borders=map_.segments.borders(), ax=ax)
            ax.set_title(f"{name}, {part} layers")
            dest, src = values.nonzero(as_tuple=True)
            flows = {"destination": dest.numpy(), "source": src.numpy(), "value": values[dest, src].numpy()}
            frames.append(pd.DataFrame(flows).assign(instance=instance, outcome=name, layers=part))
    save_figure(figure, folder / "fig2_saliency_maps", pd.concat(frames))
    return "fig2_saliency_maps: destination x source; of each outcome the two-step instance of median deep flow."


def fig3_accumulation(shown: Study, folder: Path) -> str:
    """Accumulation by layer and virtual token, and its profile over the shallow layers."""
    frame = shown.results.analysis.accumulation
    figure = plt.figure(figsize=(plots.COLUMN_WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False).flat  # so that neither is narrowed by the other's scale
    plots.plot_accumulation(frame, ax=upper.subplots())
    plots.plot_accumulation_profile(frame, shallow=shown.shallow, exclude=[0], ax=lower.subplots())
    save_figure(figure, folder / "fig3_accumulation", frame)
    ratio = shown.results.statistics["peak_ratio"]
    return f"fig3_accumulation: virtual token 0 is left out of the peak. Mean peak ratio {ratio.mean():.2f}."


def fig4_layer_flow(shown: Study, folder: Path) -> str:
    """S_pq and S_pr by layer, right against wrong."""
    analysis = shown.results.analysis
    flow = analysis.flow[(analysis.flow["source"] == "prompt") & (analysis.flow["step"] == -1)]
    frame = flow.merge(analysis.instances[["instance", "correct"]], on="instance")
    figure, axes = plt.subplots(2, 1, figsize=(plots.COLUMN_WIDTH, 4.9), layout="constrained", sharex=True)
    effects = []
    for ax, destination in zip(axes, ("question", "rationale"), strict=True):
        plots.plot_layer_flow(frame, source="prompt", destination=destination, ax=ax)
        ax.label_outer()
        effects.append(
            plots.layer_effect_sizes(frame, source="prompt", destination=destination).assign(destination=destination)
        )
    save_figure(figure, folder / "fig4_layer_flow", frame)
    pd.concat(effects).round(6).to_csv(folder / "fig4_layer_flow_effects.csv", index=False)
    return "fig4_layer_flow: 95% bootstrap bands; Hedges' g of wrong over right, bold where its interval leaves 0 out."


def fig5_step_flow(shown: Study, folder: Path) -> str:
    """Flow from the prompt, the question and earlier steps into each step."""
    analysis = shown.results.analysis
    flow = analysis.flow[(analysis.flow["step"] >= 0) & analysis.flow["layer"].isin(shown.deep)]
    frame = flow.merge(analysis.instances[["instance", "correct"]], on="instance")
    figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.8), layout="constrained")
    plots.plot_step_flow(frame, layers=shown.deep, ax=ax)
    save_figure(figure, folder / "fig5_step_flow", frame)
    return "fig5_step_flow: deep layers, 95% bootstrap bands, log scale; longer problems have more steps."


def fig6_trigger(shown: Study, folder: Path) -> str:
    """The trigger's statistic by outcome, ROC and precision-recall."""
    stats, rule = shown.results.statistics, shown.results.rule
    figure, axes = plt.subplots(3, 1, figsize=(plots.COLUMN_WIDTH, 8.6), layout="constrained")
    plots.plot_trigger_distribution(stats, statistic=rule.statistic, threshold=rule.threshold, ax=axes[0])
    plots.plot_roc(stats, statistics=SHOWN, ax=axes[1])
    plots.plot_precision_recall(stats, statistics=SHOWN, ax=axes[2])
    save_figure(figure, folder / "fig6_trigger", stats)
    shown.results.triggers.round(6).to_csv(folder / "fig6_trigger_scores.csv", index=False)
    return f"fig6_trigger: positive = PT was wrong. {_rule_text('alpha', rule)}"


def fig7_cooccurrence(shown: Study, folder: Path) -> str:
    """Accumulation against late flow."""
    stats, rule = shown.results.statistics, shown.results.rule
    kappa = calibrate_trigger(shown.results.validation, "youden", "peak_ratio")
    figure, ax = plt.subplots(figsize=(plots.COLUMN_WIDTH, 2.9), layout="constrained")
    plots.plot_cooccurrence(stats, kappa=kappa.threshold, alpha=rule.threshold, ax=ax)
    save_figure(figure, folder / "fig7_cooccurrence", stats)
    plots.cooccurrence_table(stats, kappa.threshold, rule.threshold).to_csv(
        folder / "fig7_cooccurrence_table.csv", index=False
    )
    return f"fig7_cooccurrence: {_rule_text('kappa', kappa)} {_rule_text('alpha', rule)}"


RECIPES = (
    fig1_case,
    fig2_saliency_maps,
    fig3_accumulation,
    fig4_layer_flow,
    fig5_step_flow,
    fig6_trigger,
    fig7_cooccurrence,
)


def _rule_text(name: str, rule: TriggerRule) -> str:
    where = f"criterion {rule.criterion}, {rule.split} split, n = {rule.n}"
    return f"{name}: {rule.statistic} > {rule.threshold:.3f} ({where})."


def _case_inches(tokens: pd.DataFrame) -> float:
    """What one case needs with its title; a line where there is no case."""
    words = tokens.drop_duplicates("position").sort_values("position")["token"]
    return 0.25 + (plots.case_height(list(words), columns=CASE_COLUMNS) if len(words) else 0.3)


def _median_instance(stats: pd.DataFrame, statistic: str) -> str | None:
    """The instance in the middle by `statistic`; None where there is none."""
    ordered = stats.sort_values(statistic, kind="stable")
    return str(ordered.index[len(ordered) // 2]) if len(ordered) else None


def main() -> None:
    """Draw every figure and table of a model and write them with their captions."""
    args = arguments(main.__doc__).parse_args()
    prompts = prompts_of(args.model, args.tasks, args.seeds)
    tasks = list(prompts)
    start = time.perf_counter()
    kept = kept_in(args.runs, args.model, args.n, args.n_validation)
    sizes = (args.n, args.n_validation, args.batch_size)
    jobs = [
        (args.model, task, name, *sizes, kept, None if k else (args.out / task if i else args.out))
        for i, task in enumerate(tasks)
        for k, name in enumerate(prompts[task])
    ]
    # the long ones first, so that no core is left with one at the end
    order = sorted(range(len(jobs)), key=lambda j: (jobs[j][-1] is None, -j))
    finished = map_processes(evaluate_and_draw, [jobs[j] for j in order], "evaluate and draw")
    done = [of_job for _, of_job in sorted(zip(order, finished, strict=True), key=lambda pair: pair[0])]
    first = {s.task: s for s, captions in done if captions}
    studies = [with_base(s, first[s.task]) for s, _ in done]
    captions = [of_task for _, of_task in done if of_task]
    names = ", ".join(sorted({name.rpartition("/")[2] for of_task in prompts.values() for name in of_task}))
    counts = f"{args.n} test problems a task (seed 0), {args.n_validation} validation problems for the thresholds"
    shown = "Figures show the first prompt, tables pool all; intervals are 95%, over problems."
    lines = [
        f"# Figures of {args.model}",
        f"Written by `make figures`: {counts}, prompts {names}. {shown}",
        tables(studies, args.out),
    ]
    for task, of_task in zip(tasks, captions, strict=True):
        lines += [f"## Figures of {task}", "\n".join(f"- {caption}" for caption in of_task)]
    (args.out / "README.md").write_text("\n\n".join(lines) + "\n")
    print(f"wrote {args.out} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
