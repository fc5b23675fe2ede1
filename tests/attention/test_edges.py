"""Attention patterns without some of their edges, worked by hand."""

from __future__ import annotations

import pytest
import torch

from dpc_interp import DPCInterpError
from dpc_interp.attention.edges import without_edges


def test_remaining_sources_share_the_attention_by_hand() -> None:
    """Two heads, three positions; the last row loses source 0 in both heads."""
    pattern = torch.tensor([[[[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.3, 0.2]], [[1, 0, 0], [0, 1, 0], [0.2, 0, 0.8]]]])
    removed = torch.zeros(1, 3, 3, dtype=torch.bool)
    removed[0, 2, 0] = True
    expected = pattern.clone()
    expected[0, 0, 2] = torch.tensor([0.0, 0.6, 0.4])
    expected[0, 1, 2] = torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(without_edges(pattern, removed), expected)


def test_result_is_the_softmax_without_the_removed_scores() -> None:
    scores = torch.randn(2, 3, 4, 4)
    removed = torch.rand(2, 4, 4) < 0.4
    removed[:, :, 3] = False  # every row keeps a source
    expected = scores.masked_fill(removed[:, None], float("-inf")).softmax(-1)
    torch.testing.assert_close(without_edges(scores.softmax(-1), removed), expected)


def test_mass_of_a_row_is_preserved() -> None:
    """A hook before may have scaled a row: its mass of 0.8 stays."""
    pattern = torch.tensor([[[[0.4, 0.3, 0.1]]]])
    removed = torch.tensor([[[True, False, False]]])
    torch.testing.assert_close(without_edges(pattern, removed), torch.tensor([[[[0.0, 0.6, 0.2]]]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_rows_without_removed_edges_stay(dtype: torch.dtype) -> None:
    """Rows that lose nothing keep every bit, although in half precision they do not sum to one exactly."""
    pattern = torch.randn(2, 2, 5, 5).softmax(-1).to(dtype)
    removed = torch.zeros(2, 5, 5, dtype=torch.bool)
    removed[1, 4, 2] = True
    result = without_edges(pattern, removed)
    assert result.dtype == dtype
    same_row = ~removed.any(-1)[:, None].expand(-1, 2, -1)
    assert torch.equal(result[same_row], pattern[same_row])
    precise = pattern[1, :, 4].double().clone()
    precise[:, 2] = 0
    precise *= pattern[1, :, 4].double().sum(-1, keepdim=True) / precise.sum(-1, keepdim=True)
    torch.testing.assert_close(result[1, :, 4].double(), precise, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_row_without_a_remaining_source_raises() -> None:
    pattern = torch.tensor([[[[0.7, 0.3, 0.0]]]])
    with pytest.raises(DPCInterpError, match="no source left"):
        without_edges(pattern, torch.tensor([[[True, True, False]]]))


def test_padded_row_of_zeros_stays() -> None:
    pattern = torch.zeros(1, 1, 1, 2)
    assert torch.equal(without_edges(pattern, torch.tensor([[[True, False]]])), pattern)


def test_gradient_is_that_of_the_formula() -> None:
    """d(A'_1)/dA for the row (a0, a1, a2) without source 0: A'_1 = a1 (a0 + a1 + a2) / (a1 + a2)."""
    pattern = torch.tensor([[[[0.5, 0.3, 0.2]]]], requires_grad=True)
    (slope,) = torch.autograd.grad(
        without_edges(pattern, torch.tensor([[[True, False, False]]]))[..., 1].sum(), pattern
    )
    # by a0: 0.3 / 0.5;  by a1: 1 / 0.5 + 0.3 / 0.5 - 0.3 / 0.25;  by a2: 0.3 / 0.5 - 0.3 / 0.25
    torch.testing.assert_close(slope, torch.tensor([[[[0.6, 1.4, -0.6]]]]))
