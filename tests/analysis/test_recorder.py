"""The reduction over heads by hand, blocks of rows, and the division by the loss scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpc_interp.analysis import recorder as recorder_module
from dpc_interp.analysis.recorder import FlowBlock, SaliencyRecorder, pattern_blocks, reduce_heads, whole_map
from dpc_interp.models.fused_attention import fused_attention
from dpc_interp.models.hooked import HookedModel

PATTERN = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.25, 0.75]]]])
GRADIENT = torch.tensor([[[[9.0, 9.0], [4.0, 9.0]], [[9.0, 9.0], [-12.0, 9.0]]]])


@pytest.mark.parametrize(("reduction", "expected"), [("abs_of_sum", 1.0), ("sum_of_abs", 5.0), ("mean_of_abs", 2.5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_two_heads_by_hand(reduction, expected: float, dtype: torch.dtype) -> None:
    """At the one edge off the diagonal the heads give 0.5 * 4 = 2 and 0.25 * -12 = -3."""
    flows = [reduce_heads(block, reduction) for block in pattern_blocks(PATTERN.to(dtype), GRADIENT.to(dtype))]
    assert flows[0].values.dtype == torch.float32
    assert whole_map(flows).tolist() == [[[0.0, 0.0], [expected, 0.0]]]


def test_rows_of_a_pattern_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BLOCK_SIZE", 1)
    monkeypatch.setattr(recorder_module, "MIN_ROWS", 3)
    pattern, grad = torch.rand(2, 4, 10, 15), torch.randn(2, 4, 10, 15)
    blocks = list(pattern_blocks(pattern, grad, 7))
    assert [(block.first, block.src) for block in blocks] == [(first, slice(0, 15)) for first in (7, 10, 13)]
    assert torch.equal(torch.cat([block.values for block in blocks], dim=2), (pattern * grad)[:, :, 2:])


def test_a_power_of_two_leaves_no_trace_in_float32(build: Callable[..., HookedModel]) -> None:
    model, tokens = build("gqa"), torch.tensor([[1, 40, 51, 62, 9, 13]])
    mask = torch.tensor([[False, False, False, True, True, True]])

    def reduced(scale: float) -> list[Tensor]:
        recorder = SaliencyRecorder(whole_map, "abs_of_sum", torch.device("cpu"))
        with (
            torch.enable_grad(),
            fused_attention(model, recorder.gradient),
            model.hooks(fwd_hooks=recorder.hooks(mask, [])),
        ):
            loss = model(tokens).log_softmax(-1)[0, :, 7].mean()
            recorder.loss_scale = scale
            torch.autograd.grad(loss, recorder.gradient.graph_root, torch.tensor(scale))
        assert all(recorder.is_finite.values())
        return [recorder.reduced[layer] for layer in range(model.cfg.n_layers)]

    for plain, scaled in zip(reduced(1.0), reduced(2.0**12), strict=True):
        assert plain.max() > 1e-4
        assert torch.equal(plain, scaled)


def test_a_map_of_blocks_with_other_columns() -> None:
    """A window leaves the first sources out of later blocks."""
    first = FlowBlock(slice(2, 3), slice(0, 3), torch.ones(1, 1, 3))
    second = FlowBlock(slice(3, 4), slice(2, 4), torch.full((1, 1, 2), 2.0))
    assert whole_map([first, second]).tolist() == [[[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 2.0, 2.0]]]
