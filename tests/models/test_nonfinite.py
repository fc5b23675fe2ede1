"""The error for a loss that is not finite names the first block at fault and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.nonfinite import LOSS_SCALES, loss_scales, non_finite_error, suggested_fix

TOKENS = torch.tensor([[1, 40, 51, 62]])


def test_first_block_at_fault_is_named(any_model: HookedModel, unchanged: Callable) -> None:
    """Block 1 overflows, and so does every block after it."""

    def overflow(mlp_out: Tensor, hook: object) -> Tensor:
        return mlp_out * float("inf")

    with unchanged(any_model), any_model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", overflow)]):
        error = non_finite_error(any_model, lambda: any_model(TOKENS))
    assert str(error) == "the output of block 1 is not finite; look for NaN in the weights and in your hooks"


def test_finite_blocks_leave_the_loss_at_fault(build: Callable[..., HookedModel]) -> None:
    model = build("gqa")
    assert str(non_finite_error(model, lambda: model(TOKENS))).startswith("the loss is not finite; ")


@pytest.mark.parametrize(
    ("dtype", "fix"),
    [
        (torch.float16, "load the model in float32 or bfloat16"),
        (torch.bfloat16, "look for NaN in the weights and in your hooks"),
        (torch.float32, "look for NaN in the weights and in your hooks"),
    ],
)
def test_only_float16_overflows(build: Callable[..., HookedModel], dtype: torch.dtype, fix: str) -> None:
    assert suggested_fix(build("plain", dtype=dtype)) == fix


def test_only_float16_has_loss_scales(build: Callable[..., HookedModel]) -> None:
    assert loss_scales(build("gqa")) == loss_scales(build("gqa", dtype=torch.bfloat16)) == (1.0,)
    assert loss_scales(build("gqa", dtype=torch.float16)) == LOSS_SCALES
    assert loss_scales(build("gqa").half()) == LOSS_SCALES, "the configuration still says float32"
    with torch.autocast("cpu", dtype=torch.float16):
        assert loss_scales(build("gqa")) == LOSS_SCALES
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss_scales(build("gqa")) == (1.0,)
    assert all(torch.tensor(scale).log2().frac() == 0 for scale in LOSS_SCALES), "powers of two divide exactly"
    assert LOSS_SCALES[-1] == 1.0
