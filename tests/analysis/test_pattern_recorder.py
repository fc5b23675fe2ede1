"""The reduction over heads by hand, and the division by the loss scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpc_interp.analysis.pattern_recorder import PatternRecorder, reduce_heads
from dpc_interp.models.hooked import HookedModel

PATTERN = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.25, 0.75]]]])
GRADIENT = torch.tensor([[[[9.0, 9.0], [4.0, 9.0]], [[9.0, 9.0], [-12.0, 9.0]]]])


@pytest.mark.parametrize(("reduction", "expected"), [("abs_of_sum", 1.0), ("sum_of_abs", 5.0), ("mean_of_abs", 2.5)])
def test_two_heads_by_hand(reduction, expected: float) -> None:
    """At the one edge off the diagonal the heads give 0.5 * 4 = 2 and 0.25 * -12 = -3."""
    assert reduce_heads(PATTERN, GRADIENT, reduction).tolist() == [[[0.0, 0.0], [expected, 0.0]]]
    assert reduce_heads(PATTERN.half(), GRADIENT.half(), reduction).dtype == torch.float32


def test_a_power_of_two_leaves_no_trace_in_float32(build: Callable[..., HookedModel]) -> None:
    model, tokens = build("gqa"), torch.tensor([[1, 40, 51, 62, 9, 13]])
    mask = torch.tensor([[False, False, False, True, True, True]])

    def reduced(scale: float) -> list[Tensor]:
        recorder = PatternRecorder(lambda flow: flow.clone(), "abs_of_sum", torch.device("cpu"))
        with torch.enable_grad(), model.hooks(fwd_hooks=recorder.hooks(mask)):
            loss = model(tokens).log_softmax(-1)[0, :, 7].mean()
            recorder.loss_scale = scale
            torch.autograd.grad(loss, recorder.graph_root, torch.tensor(scale))
        assert all(recorder.is_finite.values())
        return [recorder.reduced[layer] for layer in range(model.cfg.n_layers)]

    for plain, scaled in zip(reduced(1.0), reduced(2.0**12), strict=True):
        assert plain.max() > 1e-4
        assert torch.equal(plain, scaled)
