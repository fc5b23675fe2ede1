"""Corrupted vectors entry by entry, and the plan of each instance."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpc_interp import Analysis, CorruptionPlan, DPCInterpError, plan_corruption, plan_random

VECTORS = torch.tensor([[3.0, -1.0, 0.5, -2.0], [0.1, 0.2, -0.3, 0.4], [5.0, -6.0, 8.0, 7.0]])


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (CorruptionPlan(), [[3, -1, 0.5, -2], [0.1, 0.2, -0.3, 0.4], [5, -6, 8, 7]]),
        (CorruptionPlan((1,)), [[3, -1, 0.5, -2], [0, 0, 0, 0], [5, -6, 8, 7]]),
        (CorruptionPlan((0, 2), mask=0.5), [[1.5, -0.5, 0.25, -1], [0.1, 0.2, -0.3, 0.4], [2.5, -3, 4, 3.5]]),
        (CorruptionPlan(gamma=50), [[3, 0, 0, -2], [0, 0, -0.3, 0.4], [0, 0, 8, 7]]),
        (CorruptionPlan((2,), mask=0.25, gamma=75), [[3, 0, 0, 0], [0, 0, 0, 0.4], [1.25, -1.5, 2, 1.75]]),
        (CorruptionPlan((2,), mask=1, gamma=100), [[0, 0, 0, 0], [0, 0, 0, 0], [5, -6, 8, 7]]),
    ],
)
def test_entries(plan: CorruptionPlan, expected: list[list[float]]) -> None:
    original = VECTORS.clone()
    torch.testing.assert_close(plan(VECTORS), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0)
    assert torch.equal(VECTORS, original)


@pytest.mark.parametrize(("gamma", "zeros"), [(0, 0), (1, 2), (10, 20), (33, 66), (100, 200)])
def test_gamma_is_a_percentage_of_each_other_vector(gamma: float, zeros: int) -> None:
    vectors = torch.randn(6, 200)
    corrupted = CorruptionPlan((4,), mask=0.5, gamma=gamma)(vectors)
    assert (corrupted == 0).sum(1).tolist() == [zeros] * 4 + [0] + [zeros]
    for row in (0, 1, 2, 3, 5):
        zeroed, others = vectors[row][corrupted[row] == 0].abs(), vectors[row][corrupted[row] != 0].abs()
        assert not len(zeroed) or not len(others) or zeroed.max() < others.min()
        assert torch.equal(corrupted[row][corrupted[row] != 0], vectors[row][corrupted[row] != 0])


def test_placebo_depends_on_seed_and_instance_only() -> None:
    instances = [f"story-{i}" for i in range(300)]
    plans = plan_random(instances, 7, seed=3, gamma=20, mask=0.5)
    assert plan_random(instances[::-1], 7, seed=3, gamma=20, mask=0.5) == plans[::-1]
    assert plan_random(instances[50:60], 7, seed=3, gamma=20, mask=0.5) == plans[50:60]
    assert plan_random(instances, 7, seed=4, gamma=20, mask=0.5) != plans
    assert {(plan.gamma, plan.mask) for plan in plans} == {(20, 0.5)}
    counts = pd.Series([plan.tokens for plan in plans]).value_counts()
    assert sorted(counts.index) == [
        (j,) for j in range(1, 7)
    ]  # 50 each expected, standard deviation 6.5; the sink is left out
    assert counts.between(50 - 26, 50 + 26).all()


def test_the_placebo_never_draws_the_accumulation_token() -> None:
    instances = [f"story-{i}" for i in range(200)]
    peaks = [1 + i % 4 for i in range(200)]
    any_token, other = plan_random(instances, 5, 0), plan_random(instances, 5, 0, peaks=peaks)
    for peak, plan, unrestricted in zip(peaks, other, any_token, strict=True):
        assert peak not in plan.tokens
        assert plan.tokens == unrestricted.tokens or unrestricted.tokens == (peak,)
    assert sum(plan.tokens == (peak,) for peak, plan in zip(peaks, any_token, strict=True)) > 30
    with pytest.raises(DPCInterpError, match="placebo draws 4 virtual tokens"):
        plan_random(instances, 5, 0, peaks=peaks, top_k=4)


def test_placebo_can_draw_the_sink_where_it_is_included() -> None:
    drawn = {plan.tokens for plan in plan_random([str(i) for i in range(100)], 3, seed=0, sinks=())}
    assert drawn == {(0,), (1,), (2,)}


@pytest.mark.parametrize(
    ("plan", "expected"),
    [  # the mean vector is 2.7, -2.2666..., 2.7333..., 1.8
        (CorruptionPlan((1,), replace="mean"), [[3, -1, 0.5, -2], [2.7, -6.8 / 3, 8.2 / 3, 1.8], [5, -6, 8, 7]]),
        (
            CorruptionPlan((1,), mask=0.25, replace="mean"),
            [[3, -1, 0.5, -2], [2.05, -1.65, 1.975, 1.45], [5, -6, 8, 7]],
        ),
        # the other vectors are sparsified; the mean is that of the uncorrupted prompt
        (CorruptionPlan((1,), 0, 50, "mean"), [[3, 0, 0, -2], [2.7, -6.8 / 3, 8.2 / 3, 1.8], [0, 0, 8, 7]]),
    ],
)
def test_the_mean_vector_replaces_the_token(plan: CorruptionPlan, expected: list[list[float]]) -> None:
    torch.testing.assert_close(plan(VECTORS), torch.tensor(expected, dtype=torch.float32))


def test_noise_has_the_norm_and_another_direction() -> None:
    vectors = torch.randn(4, 400) * torch.tensor([[0.1], [1.0], [3.0], [20.0]])
    plan = CorruptionPlan((3, 1), replace="noise", seed=11)
    corrupted = plan(vectors)
    assert torch.equal(corrupted[[0, 2]], vectors[[0, 2]])
    torch.testing.assert_close(corrupted.norm(dim=1), vectors.norm(dim=1))
    cosines = torch.nn.functional.cosine_similarity(
        corrupted[[1, 3, 1]], torch.stack([vectors[1], vectors[3], corrupted[3]])
    )
    assert cosines.abs().max() < 0.2  # standard deviation 0.05
    assert torch.equal(plan(vectors), corrupted)
    assert not torch.allclose(CorruptionPlan((3, 1), replace="noise", seed=12)(vectors)[1], corrupted[1])
    assert torch.equal(CorruptionPlan((3, 1), mask=1.0, replace="noise", seed=11)(vectors), vectors)
    halves = CorruptionPlan((3, 1), mask=0.5, replace="noise", seed=11)(vectors)
    torch.testing.assert_close(halves, (vectors + corrupted) / 2)


def test_a_larger_placebo_contains_the_smaller() -> None:
    instances = [f"story-{i}" for i in range(50)]
    one, three = (plan_random(instances, 6, 0, top_k=k) for k in (1, 3))
    for small, large in zip(one, three, strict=True):
        assert large.tokens[:1] == small.tokens
        assert len(set(large.tokens)) == 3
        assert 0 not in large.tokens
    with pytest.raises(DPCInterpError, match="placebo draws 6 virtual tokens"):
        plan_random(instances, 6, 0, top_k=6)


def analysis_of(values: dict[str, list[list[float]]]) -> Analysis:
    """An analysis whose accumulation is `values` (instance -> layer x virtual token)."""
    rows = [
        (instance, layer, token, float(value))
        for instance, layers in values.items()
        for layer, tokens in enumerate(layers)
        for token, value in enumerate(tokens)
    ]
    accumulation = pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value"])
    return Analysis(pd.DataFrame(), accumulation, pd.DataFrame(), pd.DataFrame({"instance": list(values)}), {})


def test_the_tokens_of_largest_accumulation_are_chosen_in_order() -> None:
    analysis = analysis_of({"b": [[9, 5, 1, 7]], "a": [[2, 1, 8, 3]]})
    assert [plan.tokens for plan in plan_corruption(analysis, top_k=2)] == [(3, 1), (2, 3)]
    assert [plan.tokens for plan in plan_corruption(analysis, top_k=3, exclude_sink=False)] == [(0, 3, 1), (2, 3, 0)]
    assert [plan.tokens for plan in plan_corruption(analysis, top_k=1)] == [(3,), (2,)]
    for top_k in (0, 4):
        with pytest.raises(DPCInterpError, match=f"top_k is {top_k}; choose 1 to 3"):
            plan_corruption(analysis, top_k=top_k)


def test_noise_differs_between_instances_and_seeds() -> None:
    analysis = analysis_of({"b": [[9, 5, 1, 7]], "a": [[2, 1, 8, 3]]})
    first, again, other = (plan_corruption(analysis, replace="noise", seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert len({plan.seed for plan in [*first, *other]}) == 4
    assert {plan.seed for plan in plan_corruption(analysis, replace="mean", seed=5)} == {0}


def test_each_instance_is_masked_at_its_own_peak() -> None:
    """Layers 0 to 2, so 0 is shallow: a peaks at 2 and b at 1; over all layers a peaks at 1. Token 0 is the sink."""
    values = {
        "b": [[9, 5, 1], [0, 0, 0], [0, 0, 0]],
        "a": [[9, 1, 2], [0, 4, 0], [0, 4, 0]],
    }
    analysis = analysis_of(values)
    assert plan_corruption(analysis, gamma=20, mask=0.5) == [
        CorruptionPlan((1,), 0.5, 20),
        CorruptionPlan((2,), 0.5, 20),
    ]
    assert [plan.tokens for plan in plan_corruption(analysis, layers=(0, 1, 2))] == [(1,), (1,)]
    assert [plan.tokens for plan in plan_corruption(analysis, exclude_sink=False)] == [(0,), (0,)]


@st.composite
def plans(draw: st.DrawFn) -> tuple[torch.Tensor, CorruptionPlan]:
    """Vectors with ties, and a plan that fits them."""
    n_virtual, width = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    entries = draw(st.lists(st.integers(-4, 4), min_size=n_virtual * width, max_size=n_virtual * width))
    plan = CorruptionPlan(
        tuple(draw(st.sets(st.integers(0, n_virtual - 1)))),
        draw(st.sampled_from([0.0, 0.25, 1.0])),
        draw(st.floats(0, 100)),
        draw(st.sampled_from(["mask", "mean", "noise"])),
        draw(st.integers(0, 2**63 - 1)),
    )
    return torch.tensor(entries, dtype=torch.float32).view(n_virtual, width) / 2 + 0.1, plan


@settings(max_examples=150, deadline=None, derandomize=True)
@given(plans())
def test_any_plan_changes_only_the_entries_that_it_describes(case: tuple[torch.Tensor, CorruptionPlan]) -> None:
    vectors, plan = case
    original = vectors.clone()
    corrupted = plan(vectors)
    assert torch.equal(vectors, original)
    assert torch.equal(plan(vectors), corrupted), "the noise depends on the plan only"
    n_zero = round(vectors.shape[1] * plan.gamma / 100)
    for token, (before, after) in enumerate(zip(vectors, corrupted, strict=True)):
        if token not in plan.tokens:
            zeroed = after == 0
            assert int(zeroed.sum()) == n_zero, "no original entry is zero"
            assert torch.equal(after[~zeroed], before[~zeroed])
            if 0 < n_zero < len(before):
                assert before[zeroed].abs().max() <= before[~zeroed].abs().min()
            continue
        replacement = after - plan.mask * before
        if plan.replace == "mask":
            assert not replacement.any()
        elif plan.replace == "mean":
            torch.testing.assert_close(replacement, (1 - plan.mask) * vectors.mean(0))
        else:
            torch.testing.assert_close(replacement.norm(), (1 - plan.mask) * before.norm())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(n_virtual=st.integers(2, 9), top_k=st.integers(1, 8), seed=st.integers(0, 99), sinks=st.sets(st.integers(0, 1)))
def test_any_placebo_draws_distinct_tokens_nested_by_top_k(
    n_virtual: int, top_k: int, seed: int, sinks: set[int]
) -> None:
    names, excluded = ["a", "b", "c"], sorted(sinks)
    if top_k > n_virtual - len(sinks):
        with pytest.raises(DPCInterpError, match="placebo draws"):
            plan_random(names, n_virtual, seed, sinks=excluded, top_k=top_k)
        return
    for smaller, plan in zip(
        plan_random(names, n_virtual, seed, sinks=excluded),
        plan_random(names, n_virtual, seed, sinks=excluded, top_k=top_k),
        strict=True,
    ):
        assert len(set(plan.tokens)) == top_k
        assert set(plan.tokens) <= set(range(n_virtual)) - sinks
        assert plan.tokens[:1] == smaller.tokens
