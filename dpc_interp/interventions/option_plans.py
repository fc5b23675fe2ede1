"""`Options` applied: checked against a model, a prompt and problems, and turned into one corruption per instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.layers import check_layers, deep_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError
from dpc_interp.interventions.knockout import plan_knockout
from dpc_interp.interventions.plan import (
    CorruptionPlan,
    check_placebo,
    check_tokens,
    check_top_k,
    noise_seed,
    plan_corruption,
    plan_random,
)
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.prompts.sinks import attention_sinks
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem

Corrupts = Literal["peak", "random", "mask only", "gamma only"]
"""What a method corrupts: the chosen token and Gamma; a random token and Gamma; only the chosen token; only Gamma."""


def check_options(
    options: Options, model: HookedModel, prompt: SoftPrompt, problems: Sequence[Problem], *, placebo: bool = False
) -> None:
    """Check that options suit a model, a prompt and problems.

    Args:
        options: what the evaluation computes.
        model: whose layers the options name.
        prompt: whose virtual tokens the options name.
        problems: to be answered; target `gold` reads their written rationales.
        placebo: whether random tokens are corrupted as well.

    Raises:
        DPCInterpError: a layer, a token or a number of tokens that does not exist, a prompt of sinks alone or
            too short for the placebo, or a problem without a written rationale where the target is `gold`.
    """
    for layers in (options.deep, options.shallow):
        check_layers(layers or (), model.cfg.n_layers)
    n_candidates = prompt.n_virtual - len(attention_sinks(model, prompt.vectors) if options.exclude_sink else ())
    if not n_candidates:
        raise DPCInterpError("all virtual tokens of the prompt are left out as sinks; give exclude_sink=False")
    check_top_k(options.top_k, n_candidates)
    if placebo:
        check_placebo(options.top_k, n_candidates - 1)
    if isinstance(options.token, int):
        check_tokens((options.token,), prompt.n_virtual)
    unsolved = [problem.id for problem in problems if not problem.rationale.strip()]
    if options.target == "gold" and unsolved:
        raise DPCInterpError(f"{unsolved[0]} has no written rationale; target 'gold' needs one")


def plans_from_options(options: Options, corrupts: Corrupts, analysis: Analysis) -> dict[str, PromptEdit]:
    """Plan the corruption of each analysed instance.

    Args:
        options: what the evaluation computes.
        corrupts: which parts of the corruption the method applies.
        analysis: analysis of the transcripts under prompt tuning; it determines the accumulation token.

    Returns:
        Id of the instance -> its plan, in the order of `analysis.instances`.
    """
    instances = analysis.instances["instance"].tolist()
    plans: Sequence[PromptEdit]
    if corrupts == "peak" and options.knock_out != "nowhere":
        plans = _knockout_plans(options, analysis)
    elif corrupts == "gamma only":
        plans = [CorruptionPlan(gamma=options.gamma)] * len(instances)
    else:
        gamma = 0 if corrupts == "mask only" else options.gamma
        plans = _token_plans(options, corrupts, gamma, analysis, instances)
    return dict(zip(instances, plans, strict=True))


def _knockout_plans(options: Options, analysis: Analysis) -> Sequence[PromptEdit]:
    """Hide the accumulation token at the layers that `options.knock_out` names."""
    layers = {
        "shallow": options.shallow or shallow_layers(analysis.n_layers),
        "deep": options.deep or deep_layers(analysis.n_layers),
        "everywhere": None,
    }
    return plan_knockout(
        analysis,
        knock_out_at=layers[options.knock_out],
        layers=options.shallow,
        exclude_sink=options.exclude_sink,
    )


def _token_plans(
    options: Options, corrupts: Corrupts, gamma: float, analysis: Analysis, instances: list[str]
) -> Sequence[PromptEdit]:
    """Corrupt random tokens, the token that the options name, or the accumulation token."""
    if corrupts == "random" or options.token == "random":
        peaks = accumulation_peaks(analysis.accumulation, layers=options.shallow, exclude_sink=options.exclude_sink)
        return plan_random(
            instances,
            analysis.n_virtual,
            options.seed,
            gamma,
            options.mask,
            peaks=peaks["peak_token"][instances].tolist(),
            sinks=analysis.sinks if options.exclude_sink else (),
            top_k=options.top_k,
            replace=options.replace,
        )
    if isinstance(options.token, int):
        seeds = [noise_seed(options.replace, options.seed, instance) for instance in instances]
        return [CorruptionPlan((options.token,), options.mask, gamma, options.replace, seed) for seed in seeds]
    return plan_corruption(
        analysis,
        gamma,
        options.mask,
        layers=options.shallow,
        exclude_sink=options.exclude_sink,
        top_k=options.top_k,
        replace=options.replace,
        seed=options.seed,
    )
