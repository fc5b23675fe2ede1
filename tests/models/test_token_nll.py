"""The NLL of tokens against PyTorch's cross entropy in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from dpc_interp.models import token_nll as module
from dpc_interp.models.token_nll import token_nll


@pytest.mark.parametrize("block_size", [2**21, 35], ids=["one block", "blocks"])
@pytest.mark.parametrize("n_tokens", [0, 1, 13])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, block_size: int, n_tokens: int, dtype: torch.dtype, bound: float
) -> None:
    monkeypatch.setattr(module, "BLOCK_SIZE", block_size)
    logits = (5 * torch.randn(n_tokens, 17)).to(dtype)
    labels, weights = torch.randint(17, (n_tokens,)), torch.rand(n_tokens)
    exact = logits.double().requires_grad_()
    expected = cross_entropy(exact, labels, reduction="none")
    (expected * weights).sum().backward()
    given = logits.clone().requires_grad_()
    nll = token_nll(given, labels)
    (nll * weights).sum().backward()
    assert nll.dtype == torch.float32
    assert given.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(nll.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=bound, atol=bound)
    assert torch.equal(given.detach(), logits)


def test_a_loss_that_is_not_finite_stays_so() -> None:
    logits = torch.tensor([[0.0, torch.inf], [torch.nan, 0.0]])
    assert not torch.isfinite(token_nll(logits, torch.tensor([0, 1]))).any()
