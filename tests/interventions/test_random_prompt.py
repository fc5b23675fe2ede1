"""Random prompts: another draw for each instance and seed, with the moments of the embedding table."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate
from dpc_interp.interventions.random_prompt import RandomPromptPlan, plan_random_prompts
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.embedding import embedding_moments

INSTANCES = [f"story-{i}" for i in range(50)]


def test_vectors_differ_by_instance_and_do_not_depend_on_the_tuned_ones(model: HookedModel, prompt: SoftPrompt) -> None:
    plans = plan_random_prompts(model, INSTANCES, seed=0)
    drawn = [plan(prompt.vectors) for plan in plans]
    assert len({tuple(vectors.flatten().tolist()) for vectors in drawn}) == len(INSTANCES)
    for plan, vectors in zip(plans, drawn, strict=True):
        assert vectors.shape == prompt.vectors.shape
        assert torch.equal(plan(torch.zeros_like(prompt.vectors)), vectors)
        assert torch.equal(plan(prompt.vectors), vectors), "a plan draws the same vectors at each call"
    assert torch.equal(torch.stack(drawn), torch.stack([plan(prompt.vectors) for plan in plans]))


def test_seeds_depend_on_seed_and_instance_only(model: HookedModel, prompt: SoftPrompt) -> None:
    plans = plan_random_prompts(model, INSTANCES, seed=3)
    assert plan_random_prompts(model, INSTANCES[::-1], seed=3) == plans[::-1]
    assert plan_random_prompts(model, INSTANCES[7:9], seed=3) == plans[7:9]
    others = plan_random_prompts(model, INSTANCES, seed=4)
    assert len({plan.seed for plan in [*plans, *others]}) == 2 * len(INSTANCES)
    torch.manual_seed(99)  # the global state does not matter
    (again,) = plan_random_prompts(model, INSTANCES[:1], seed=3)
    assert torch.equal(again(prompt.vectors), plans[0](prompt.vectors))
    assert not torch.equal(others[0](prompt.vectors), plans[0](prompt.vectors))


def test_vectors_have_the_moments_of_the_table(any_model: HookedModel) -> None:
    """Over instances, within five standard errors: std / sqrt(n) of a mean, std / sqrt(2 n) of a deviation."""
    n_virtual = 400
    plans = plan_random_prompts(any_model, INSTANCES, seed=0)
    vectors = torch.cat([plan(torch.zeros(n_virtual, any_model.cfg.d_model)) for plan in plans]).double()
    n = n_virtual * len(INSTANCES)
    table = any_model.W_E.double()
    scale = table.std(0)
    assert ((vectors.mean(0) - table.mean(0)).abs() < 5 * scale / n**0.5).all()
    assert ((vectors.std(0) - scale).abs() < 5 * scale / (2 * n) ** 0.5).all()


def test_a_plan_draws_what_a_random_prompt_of_its_seed_has(model: HookedModel) -> None:
    plan = RandomPromptPlan(8, *embedding_moments(model))
    assert torch.equal(plan(torch.zeros(6, model.cfg.d_model)), SoftPrompt.random(model, 6, seed=8).vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_vectors_have_the_dtype_of_those_they_replace(model: HookedModel, dtype: torch.dtype) -> None:
    (plan,) = plan_random_prompts(model, ["a"], seed=0)
    vectors = torch.zeros(5, model.cfg.d_model, dtype=dtype)
    assert plan(vectors).dtype == dtype
    torch.testing.assert_close(plan(vectors), plan(vectors.float()).to(dtype))


def test_plans_are_pickled(model: HookedModel, prompt: SoftPrompt) -> None:
    """Engines send plans to other processes."""
    plans = plan_random_prompts(model, INSTANCES[:3], seed=0)
    loaded = pickle.loads(pickle.dumps(plans))
    assert loaded == plans
    for plan, other in zip(plans, loaded, strict=True):
        assert torch.equal(plan(prompt.vectors), other(prompt.vectors))


def test_the_repr_identifies_a_plan_of_a_model(model: HookedModel) -> None:
    """It is part of the key of a stored stage, which names the model already."""
    (plan,) = plan_random_prompts(model, ["a"], seed=0)
    assert repr(plan) == f"RandomPromptPlan(seed={plan.seed})"
    assert hash(plan) == hash(RandomPromptPlan(plan.seed, 2 * plan.mean, plan.std))


def test_generation_under_a_plan_is_that_of_a_random_prompt(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt
) -> None:
    """In one batch each row has its own vectors."""
    plans = plan_random_prompts(model, [problem.id for problem in problems[:4]], seed=1)
    options = {"max_new_tokens": 12, "progress": False}
    runs = generate(model, problems[:4], prompt, plans=plans, **options)
    for plan, problem, run in zip(plans, problems, runs, strict=False):
        (expected,) = generate(model, [problem], SoftPrompt(plan(prompt.vectors)), **options)
        assert torch.equal(run.generated_tokens, expected.generated_tokens)


def test_a_table_of_one_row_raises(needs_hooked: None, build: Callable[..., HookedModel]) -> None:
    tiny = build("plain")
    tiny.embed.W_E = torch.nn.Parameter(tiny.W_E[:1], requires_grad=False)
    with pytest.raises(DPCInterpError, match="fewer than 2 rows"):
        plan_random_prompts(tiny, ["a"], seed=0)
