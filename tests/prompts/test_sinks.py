"""Attention sinks are the first virtual token and those whose residual stream is far above that of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpc_interp import (
    Options,
    Problem,
    SoftPrompt,
    accumulation_peaks,
    analyse,
    attention_sinks,
    drop_empty_rationales,
    generate,
    plan_corruption,
)
from dpc_interp.interventions.option_plans import check_options, plans_from_options
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.sinks import SINK_RATIO


def with_large(prompt: SoftPrompt, *tokens: int, factor: float = 1e4) -> SoftPrompt:
    """The prompt with some vectors so large that the residual stream stays large after every layer."""
    vectors = prompt.vectors.clone()
    vectors[list(tokens)] *= factor
    return replace(prompt, vectors=vectors)


def test_the_first_token_is_a_sink_and_so_is_a_token_of_a_large_residual(
    model: HookedModel, prompt: SoftPrompt
) -> None:
    assert attention_sinks(model, prompt.vectors) == (0,)
    assert attention_sinks(model, with_large(prompt, 3).vectors) == (0, 3)
    assert attention_sinks(model, with_large(prompt, 0, 2).vectors) == (0, 2)
    assert attention_sinks(model, prompt.vectors[:1]) == (0,)
    assert attention_sinks(model, with_large(prompt, 0, 1).vectors[:4]) == (0, 1), "sinks are no part of the median"


def test_the_bound_is_on_norms_over_their_median(model: HookedModel, prompt: SoftPrompt) -> None:
    """Against the residual norms of the middle layers, read with `run_with_cache` through the public hook points."""
    names = {f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers // 3, 2 * model.cfg.n_layers // 3)}
    for factor in (10, 30, 100, 300):
        large = with_large(prompt, 4, factor=factor)

        def write(embed: torch.Tensor, hook: object, vectors: torch.Tensor = large.vectors) -> torch.Tensor:
            return vectors[None].to(embed)

        with torch.no_grad(), model.hooks(fwd_hooks=[("hook_embed", write)]):
            _, cache = model.run_with_cache(
                torch.zeros(1, len(large.vectors), dtype=torch.long), names_filter=names.__contains__
            )
        norms = torch.stack([cache[name][0].norm(dim=-1) for name in sorted(names)])
        ratio = (norms / norms.median(dim=1, keepdim=True).values)[:, 4].max().item()
        assert (4 in attention_sinks(model, large.vectors)) == (ratio > SINK_RATIO), (factor, ratio)


def test_what_precedes_the_prompt_is_no_yardstick(model: HookedModel, prompt: SoftPrompt) -> None:
    """After a text of small vectors, all virtual tokens would be far above the median of all positions."""
    large = with_large(prompt, 3, factor=1e5).vectors * 1e4
    vectors = torch.cat([1e-3 * prompt.vectors, 1e-3 * prompt.vectors, large])
    assert set(attention_sinks(model, vectors)) > {10, 11, 12}
    assert attention_sinks(model, vectors, start=10) == (0, 3)


def test_no_hook_is_left_and_no_gradient_is_taken(model: HookedModel, prompt: SoftPrompt) -> None:
    seen = []

    def record(resid: torch.Tensor, hook: object) -> None:
        seen.append(resid.requires_grad)

    with model.hooks(fwd_hooks=[(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", record)]):
        attention_sinks(model, prompt.vectors.clone().requires_grad_())
    assert seen == [False]
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_measured_sink_is_neither_the_peak_nor_drawn_nor_corrupted(
    model: HookedModel, prompt: SoftPrompt, problems: list[Problem]
) -> None:
    large = with_large(prompt, 2)
    runs = drop_empty_rationales(model, generate(model, problems, large, max_new_tokens=12, progress=False))
    analysis = analyse(model, runs, large, progress=False)
    assert analysis.sinks == (0, 2)
    assert not accumulation_peaks(analysis.accumulation)["peak_token"].isin([0, 2]).any()
    n_candidates = large.n_virtual - 2
    for corrupts in ("peak", "random"):
        options = Options(top_k=n_candidates - (corrupts == "random"))
        for plan in plans_from_options(options, corrupts, analysis).values():
            assert not {0, 2} & set(plan.tokens)
    check_options(Options(top_k=n_candidates), model, large, problems)
    with pytest.raises(Exception, match=f"choose 1 to {n_candidates}"):
        check_options(Options(top_k=n_candidates + 1), model, large, problems)
    with pytest.raises(Exception, match=f"choose 1 to {n_candidates}"):
        plan_corruption(analysis, top_k=n_candidates + 1)
