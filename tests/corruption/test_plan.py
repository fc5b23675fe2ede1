"""What a plan does to the vectors, entry by entry, and which plan an instance gets."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from dpc_interp import Analysis, CorruptionPlan, plan_corruption, plan_random

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
    kept = VECTORS.clone()
    torch.testing.assert_close(plan(VECTORS), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0)
    assert torch.equal(VECTORS, kept)


@pytest.mark.parametrize(("gamma", "zeros"), [(0, 0), (1, 2), (10, 20), (33, 66), (100, 200)])
def test_gamma_is_a_percentage_of_each_other_vector(gamma: float, zeros: int) -> None:
    vectors = torch.randn(6, 200)
    found = CorruptionPlan((4,), mask=0.5, gamma=gamma)(vectors)
    assert (found == 0).sum(1).tolist() == [zeros] * 4 + [0] + [zeros]
    for row in (0, 1, 2, 3, 5):
        gone, left = vectors[row][found[row] == 0].abs(), vectors[row][found[row] != 0].abs()
        assert not len(gone) or not len(left) or gone.max() < left.min()
        assert torch.equal(found[row][found[row] != 0], vectors[row][found[row] != 0])


def test_placebo_depends_on_seed_and_instance_alone() -> None:
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


def test_placebo_may_name_the_sink_where_it_is_not_excluded() -> None:
    named = {plan.tokens for plan in plan_random([str(i) for i in range(100)], 3, seed=0, exclude_sink=False)}
    assert named == {(0,), (1,), (2,)}


def test_each_instance_is_masked_at_its_own_peak() -> None:
    """Layers 0 to 2, so 0 is shallow: a peaks at 2 and b at 1; over all layers a peaks at 1. Token 0 is the sink."""
    values = {
        "b": [[9, 5, 1], [0, 0, 0], [0, 0, 0]],
        "a": [[9, 1, 2], [0, 4, 0], [0, 4, 0]],
    }
    rows = [
        (instance, layer, token, float(value))
        for instance, layers in values.items()
        for layer, tokens in enumerate(layers)
        for token, value in enumerate(tokens)
    ]
    accumulation = pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value"])
    instances = pd.DataFrame({"instance": ["b", "a"]})
    found = Analysis(pd.DataFrame(), accumulation, pd.DataFrame(), instances, {})
    assert plan_corruption(found, gamma=20, mask=0.5) == [CorruptionPlan((1,), 0.5, 20), CorruptionPlan((2,), 0.5, 20)]
    assert [plan.tokens for plan in plan_corruption(found, layers=(0, 1, 2))] == [(1,), (1,)]
    assert [plan.tokens for plan in plan_corruption(found, exclude_sink=False)] == [(0,), (0,)]
