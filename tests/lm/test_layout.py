"""Weights in the memory layout in which they are read: the same numbers, the same results, and no copy of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import dpc_interp as dpc
from dpc_interp.evaluation.stages import model_digest
from dpc_interp.lm.layout import store_as_read
from dpc_interp.lm.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("needs_hooked")


def copied(model: HookedTransformer, tokens: torch.Tensor) -> int:
    """Numbers copied in one forward pass."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        model(tokens)
    return sum(torch.Size(e.input_shapes[0]).numel() for e in seen.events() if e.name == "aten::copy_")


@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
def test_same_numbers_and_fewer_copies(build: Callable[..., HookedTransformer], kind: str) -> None:
    before = build(kind)
    after = deepcopy(before)
    store_as_read(after)
    weights = dict(before.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in after.named_parameters())
    assert all(not weight.requires_grad for weight in after.parameters())
    assert model_digest(after) == model_digest(before)
    tokens = torch.arange(3, 13).view(2, 5)
    resid = torch.randn(2, 5, before.cfg.d_model, requires_grad=True)
    results = []
    for model in (before, after):
        logits = model(resid, start_at_layer=0)
        (slope,) = torch.autograd.grad(logits.square().sum(), resid)
        results.append((model(tokens), logits, slope))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    one = tokens[:1, :1]
    read = ("W_Q", "W_K", "W_V", "W_O", "W_U") + (("W_gate", "W_in", "W_out") if before.cfg.gated_mlp else ())
    large = sum(w.numel() for name, w in weights.items() if name.endswith(read))
    assert copied(before, one) - copied(after, one) == large


def test_a_loaded_model_is_stored_so() -> None:
    model = dpc.load_model("reasoner", device="cpu", backend="hooked")
    block = model.blocks[0]
    assert block.attn.W_Q.transpose(1, 2).is_contiguous()
    assert block.attn.W_O.permute(2, 0, 1).is_contiguous()
    assert block.mlp.W_out.T.is_contiguous()
    assert model.unembed.W_U.T.is_contiguous()
    assert not any(weight.requires_grad for weight in model.parameters())
