"""The plans that `Options` ask for, and the options that a model, a prompt or problems rule out."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from dpc_interp import Analysis, CorruptionPlan, DPCInterpError, KnockoutPlan, Options, Problem, SoftPrompt, plan_random
from dpc_interp.interventions.option_plans import check_options, plans_from_options
from dpc_interp.interventions.plan import noise_seed
from dpc_interp.models.hooked import HookedModel

VALUES = {"b": [[9, 5, 1, 7], [9, 8, 1, 2], [0, 0, 0, 0]], "a": [[2, 1, 8, 3], [2, 1, 8, 3], [0, 0, 0, 0]]}
"""Instance -> accumulation [layer, virtual_token]. Layer 0 is shallow: b peaks at token 3, a at token 2."""


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    rows = [
        (instance, layer, token, float(value))
        for instance, layers in VALUES.items()
        for layer, tokens in enumerate(layers)
        for token, value in enumerate(tokens)
    ]
    accumulation = pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value"])
    return Analysis(pd.DataFrame(), accumulation, pd.DataFrame(), pd.DataFrame({"instance": list(VALUES)}), {})


def test_methods_apply_their_parts_of_the_corruption(analysis: Analysis) -> None:
    options = Options(gamma=20, mask=0.5)
    plans = {
        part: plans_from_options(options, part, analysis) for part in ("peak", "mask only", "gamma only", "random")
    }
    assert plans["peak"] == {"b": CorruptionPlan((3,), 0.5, 20), "a": CorruptionPlan((2,), 0.5, 20)}
    assert plans["mask only"] == {"b": CorruptionPlan((3,), 0.5, 0), "a": CorruptionPlan((2,), 0.5, 0)}
    assert plans["gamma only"] == {"b": CorruptionPlan(gamma=20), "a": CorruptionPlan(gamma=20)}
    placebo = plan_random(["b", "a"], 4, seed=0, gamma=20, mask=0.5, peaks=[3, 2])
    assert plans["random"] == dict(zip(["b", "a"], placebo, strict=True))


def test_options_choose_the_tokens(analysis: Analysis) -> None:
    def tokens(**fields: object) -> dict[str, tuple[int, ...]]:
        plans = plans_from_options(Options(**fields), "peak", analysis)
        return {instance: plan.tokens for instance, plan in plans.items()}

    assert tokens(token=1) == {"b": (1,), "a": (1,)}
    assert tokens(top_k=2) == {"b": (3, 1), "a": (2, 3)}
    assert tokens(shallow=[1]) == {"b": (1,), "a": (2,)}
    assert tokens(exclude_sink=False) == {"b": (0,), "a": (2,)}
    for seed in (3, 4):
        placebo = plan_random(["b", "a"], 4, seed=seed, peaks=[3, 2])
        assert tokens(token="random", seed=seed) == {"b": placebo[0].tokens, "a": placebo[1].tokens}


@pytest.mark.parametrize("token", ["peak", "random", 1])
def test_noise_is_seeded_by_seed_and_instance(analysis: Analysis, token: int | str) -> None:
    plans = plans_from_options(Options(token=token, replace="noise", seed=5), "peak", analysis)
    assert {i: plan.seed for i, plan in plans.items()} == {i: noise_seed("noise", 5, i) for i in ("b", "a")}
    assert {plan.replace for plan in plans.values()} == {"noise"}


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({"knock_out": "shallow"}, (0,)),
        ({"knock_out": "deep"}, (2,)),
        ({"knock_out": "deep", "deep": [1, 2]}, (1, 2)),
        ({"knock_out": "everywhere"}, None),
    ],
)
def test_knock_out_hides_the_accumulation_token(
    analysis: Analysis, fields: dict[str, object], layers: tuple[int, ...] | None
) -> None:
    options = Options(**fields)
    plans = plans_from_options(options, "peak", analysis)
    assert plans == {"b": KnockoutPlan((3,), layers), "a": KnockoutPlan((2,), layers)}
    placebo = plans_from_options(options, "random", analysis)
    assert all(isinstance(plan, CorruptionPlan) for plan in placebo.values())


def test_shallow_layers_decide_the_hidden_token_and_where_it_is_hidden(analysis: Analysis) -> None:
    plans = plans_from_options(Options(knock_out="shallow", shallow=[1]), "peak", analysis)
    assert plans["b"] == KnockoutPlan((1,), (1,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"deep": [3]}, "no layer 3"),
        ({"shallow": [0, 7]}, "no layer 7"),
        ({"top_k": 5}, "top_k is 5; choose 1 to 4"),
        ({"token": 5}, "names token 5; the prompt has 5"),
        ({"token": -1}, "names token -1"),
    ],
)
def test_options_that_the_model_or_the_prompt_lacks_raise(
    model: HookedModel, prompt: SoftPrompt, problems: list[Problem], fields: dict[str, object], message: str
) -> None:
    check_options(Options(), model, prompt, problems)
    with pytest.raises(DPCInterpError, match=message):
        check_options(Options(**fields), model, prompt, problems)


def test_the_sink_counts_as_a_candidate_only_where_it_is_included(model: HookedModel, prompt: SoftPrompt) -> None:
    check_options(Options(top_k=5, exclude_sink=False), model, prompt, [])


def test_a_prompt_of_the_sink_alone_is_refused(model: HookedModel, prompt: SoftPrompt) -> None:
    one = replace(prompt, vectors=prompt.vectors[:1])
    with pytest.raises(
        DPCInterpError, match="all virtual tokens of the prompt are left out as sinks; give exclude_sink=False"
    ):
        check_options(Options(), model, one, [])
    check_options(Options(exclude_sink=False), model, one, [])


def test_a_prompt_too_short_for_the_placebo_is_refused(model: HookedModel, prompt: SoftPrompt) -> None:
    two = replace(prompt, vectors=prompt.vectors[:2])
    check_options(Options(), model, two, [])
    with pytest.raises(DPCInterpError, match=r"draws 1 virtual tokens, and besides .* has 0"):
        check_options(Options(), model, two, [], placebo=True)
    check_options(Options(top_k=3), model, prompt, [], placebo=True)
    with pytest.raises(DPCInterpError, match="placebo draws 4"):
        check_options(Options(top_k=4), model, prompt, [], placebo=True)


def test_target_gold_needs_written_rationales(model: HookedModel, prompt: SoftPrompt, problems: list[Problem]) -> None:
    unsolved = replace(problems[1], rationale=" \n")
    check_options(Options(), model, prompt, [problems[0], unsolved])
    check_options(Options(target="gold"), model, prompt, problems[:1])
    with pytest.raises(DPCInterpError, match=f"{unsolved.id} has no written rationale"):
        check_options(Options(target="gold"), model, prompt, [problems[0], unsolved])
