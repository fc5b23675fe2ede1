"""The output of fused attention against a written pattern."""

from __future__ import annotations

import pytest
import torch

from dpc_interp.attention import inputs as module
from dpc_interp.attention.inputs import AttentionInputs


def written_pattern(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and pattern, position by position."""
    n_dest, n_src = inputs.q.shape[2], inputs.k.shape[2]
    repeats = inputs.q.shape[1] // inputs.k.shape[1]
    keys, values = (x.repeat_interleave(repeats, dim=1) for x in (inputs.k, inputs.v))
    dest, src = n_src - n_dest + torch.arange(n_dest)[:, None], torch.arange(n_src)
    allowed = (src <= dest) & (src > dest - (inputs.window or n_src))
    if inputs.visible is not None:
        allowed = allowed & inputs.visible[:, None, None]
    pattern = (inputs.q @ keys.mT * inputs.scale).masked_fill(~allowed, -torch.inf).softmax(-1)
    return pattern @ values, pattern


@pytest.mark.parametrize("rows", [512, 7], ids=["one call", "blocks"])
@pytest.mark.parametrize("n_dest", [1, 20])
@pytest.mark.parametrize("n_before", [0, 5])
@pytest.mark.parametrize("n_kv", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("padded", [False, True])
def test_output(
    monkeypatch: pytest.MonkeyPatch, rows: int, n_dest: int, n_before: int, n_kv: int, window: int | None, padded: bool
) -> None:
    monkeypatch.setattr(module, "MAX_MASKED_QUERIES", rows)
    generator = torch.Generator().manual_seed(0)
    n_src = n_before + n_dest
    q = torch.randn(2, 4, n_dest, 8, generator=generator)
    k, v = torch.randn(2, 2, n_kv, n_src, 8, generator=generator)
    visible = torch.ones(2, n_src, dtype=torch.bool)
    visible[1, : min(3, n_src - 1)] = False
    inputs = AttentionInputs(0, q, k, v, 0.3, window, visible if padded else None)
    z, pattern = written_pattern(inputs)
    queries = ~pattern.isnan().any(-1)[:, 0]  # the others are padding and have no key
    assert torch.isfinite(inputs.attend()).all(), "NaN of padding would reach the other rows"
    torch.testing.assert_close(inputs.attend().transpose(1, 2)[queries], z.transpose(1, 2)[queries])


def test_sources_of_a_window() -> None:
    q, k = torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 10, 2)
    inputs = AttentionInputs(0, q, k, k, 1.0, 3, None)
    assert inputs.n_before == 6
    columns, mask = inputs.sources(1, 3)
    assert columns == slice(5, 9)
    assert mask is not None
    assert mask[0, 0].tolist() == [[True, True, True, False], [False, True, True, True]]


@pytest.mark.parametrize(
    ("window", "padded", "causal"), [(None, False, True), (4, False, True), (3, False, False), (None, True, False)]
)
def test_is_causal(window: int | None, padded: bool, causal: bool) -> None:
    x = torch.zeros(1, 1, 4, 2)
    visible = torch.tensor([[False, True, True, True]]) if padded else None
    assert AttentionInputs(0, x, x, x, 1.0, window, visible).is_causal is causal
