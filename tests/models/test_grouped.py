"""The products of grouped-query attention: worked by hand, and equal to those of TransformerLens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from dpc_interp.models.grouped import grouped_attention_scores, grouped_weighted_values, is_grouped
from dpc_interp.models.lens import HookedTransformer


def layer(soft_cap: float = -1.0) -> SimpleNamespace:
    """What the products read of an attention layer; its `hook_z` adds 1, so that a bypassed hook shows."""
    return SimpleNamespace(
        attn_scale=2.0, cfg=SimpleNamespace(attn_scores_soft_cap=soft_cap), hook_z=lambda value: value + 1
    )


def test_scores_by_hand() -> None:
    """Two query heads share the keys (1, 2) and (3, 4); the scores are q . k / 2."""
    queries = torch.tensor([[[[2.0, 0.0], [0.0, 4.0]]]])
    keys = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    expected = torch.tensor([[[[1.0, 3.0]], [[4.0, 8.0]]]])
    assert torch.equal(grouped_attention_scores(layer(), queries, keys), expected)
    capped = grouped_attention_scores(layer(soft_cap=5.0), queries, keys)
    torch.testing.assert_close(capped, 5 * torch.tanh(expected / 5))


def test_weighted_values_by_hand() -> None:
    """Two query heads share the values (8, 0) and (4, 2)."""
    pattern = torch.tensor([[[[0.25, 0.75]], [[1.0, 0.0]]]])
    values = torch.tensor([[[[8.0, 0.0]], [[4.0, 2.0]]]])
    expected = torch.tensor([[[[5.0, 1.5], [8.0, 0.0]]]]) + 1
    assert torch.equal(grouped_weighted_values(layer(), values, pattern), expected)


@pytest.mark.usefixtures("needs_hooked")
def test_products_equal_those_of_transformer_lens(build: Callable[..., HookedTransformer]) -> None:
    """4 query heads over 2 key heads, 3 queries over 5 keys: a wrong pairing of heads would show."""
    attention = build("gqa").blocks[1].attn
    q, k, v = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 4), torch.randn(2, 5, 2, 4)
    scores = attention.calculate_attention_scores(q, k)
    torch.testing.assert_close(grouped_attention_scores(attention, q, k), scores, rtol=1e-5, atol=1e-6)
    pattern = scores.softmax(-1)
    expected = attention.calculate_z_scores(v, pattern)
    torch.testing.assert_close(grouped_weighted_values(attention, v, pattern), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("needs_hooked")
def test_only_layers_that_share_keys_are_grouped(build: Callable[..., HookedTransformer]) -> None:
    assert is_grouped(build("gqa").blocks[0].attn)
    assert not is_grouped(build("plain").blocks[0].attn)
    assert not is_grouped(build("gqa", ungroup_grouped_query_attention=True).blocks[0].attn)
