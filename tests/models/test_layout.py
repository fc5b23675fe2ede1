"""Weights stored in the order in which they are read: the same numbers and results, without copies in a pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import dpc_interp as dpc
from dpc_interp.execution.digest import model_digest
from dpc_interp.models.layout import make_weights_contiguous_as_read
from dpc_interp.models.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("needs_hooked")


def n_copied(model: HookedTransformer, tokens: torch.Tensor) -> int:
    """Numbers copied in one forward pass."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        model(tokens)
    return sum(torch.Size(e.input_shapes[0]).numel() for e in profiled.events() if e.name == "aten::copy_")


@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
def test_same_numbers_and_fewer_copies(build: Callable[..., HookedTransformer], kind: str) -> None:
    before = build(kind)
    after = deepcopy(before)
    make_weights_contiguous_as_read(after)
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
    one_token = tokens[:1, :1]
    transposed = ("W_Q", "W_K", "W_V", "W_O", "W_U") + (("W_gate", "W_in", "W_out") if before.cfg.gated_mlp else ())
    n_transposed = sum(weight.numel() for name, weight in weights.items() if name.endswith(transposed))
    assert n_copied(before, one_token) - n_copied(after, one_token) == n_transposed


def test_loaded_model_has_the_layout() -> None:
    model = dpc.load_model("reasoner", device="cpu", backend="hooked")
    block = model.blocks[0]
    assert block.attn.W_Q.transpose(1, 2).is_contiguous()
    assert block.attn.W_O.permute(2, 0, 1).is_contiguous()
    assert block.mlp.W_out.T.is_contiguous()
    assert model.unembed.W_U.T.is_contiguous()
    assert not any(weight.requires_grad for weight in model.parameters())
