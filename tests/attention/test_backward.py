"""The backward pass of attention against that of a written pattern."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from dpc_interp.attention import backward as module
from dpc_interp.attention.backward import PatternGradient, ProductBlock, attend, rows_of_block
from dpc_interp.attention.inputs import AttentionInputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_kv", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("n_before", [0, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_the_backward_pass_equals_that_of_a_written_pattern(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, n_kv: int, window: int | None, n_before: int, padded: bool
) -> None:
    """Products A * dL/dA and the gradients of q, k and v, in blocks of 16 queries."""
    monkeypatch.setattr(module, "BLOCK_SIZE", 1)
    monkeypatch.setattr(module, "MIN_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    n_dest, n_heads, d_head = 40, 4, 8
    n_src, first = n_before + n_dest, n_before + 2
    q, grad = (torch.randn(2, n_heads, n_dest, d_head, generator=generator).to(dtype) for _ in range(2))
    k, v = (torch.randn(2, n_kv, n_src, d_head, generator=generator).to(dtype) for _ in range(2))
    visible = torch.ones(2, n_src, dtype=torch.bool)
    visible[1, :3] = not padded
    dest, src = n_before + torch.arange(n_dest)[:, None], torch.arange(n_src)
    allowed = (src <= dest) & (src > dest - (window or n_src)) & visible[:, None, None]

    exact = [x.double().requires_grad_() for x in (q, k, v)]
    keys, values = (x.repeat_interleave(n_heads // n_kv, dim=1) for x in exact[1:])
    weights = (exact[0] @ keys.mT * 0.3).exp().masked_fill(~allowed, 0.0)
    pattern = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    *slopes, by_pattern = torch.autograd.grad(((pattern @ values) * grad.double()).sum(), [*exact, pattern])
    expected = (pattern * by_pattern)[:, :, 2:].detach()

    read: list[Tensor] = []
    layers: list[int] = []

    def reader(layer: int, blocks: Iterator[ProductBlock]) -> None:
        layers.append(layer)
        read.extend(pad(b.values, (b.src.start, n_src - b.src.stop)).clone() for b in blocks)

    root = torch.zeros((), requires_grad=True)
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    attention = AttentionInputs(3, *inputs, 0.3, window, visible if padded else None)
    z = attend(attention, PatternGradient(reader, root, first))
    ours = torch.autograd.grad((z * grad).sum(), inputs)
    assert layers == [3]
    assert len(read) > 1
    bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for mine, theirs in ((torch.cat(read, dim=2), expected), *zip(ours, slopes, strict=True)):
        torch.testing.assert_close(mine.double(), theirs, rtol=bound, atol=bound * theirs.abs().max().item())


@pytest.mark.parametrize("n_src", [100, 1_024, 8_192])
@pytest.mark.parametrize("n_maps", [9, 64, 512])
def test_a_block_fits_the_cache(n_maps: int, n_src: int) -> None:
    rows = rows_of_block(n_maps, n_src)
    assert rows == module.MIN_ROWS or n_maps * rows * n_src <= module.BLOCK_SIZE
    assert rows == module.MIN_ROWS or rows * 8 <= n_src
