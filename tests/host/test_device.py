"""Devices and precisions by name: what this machine has works, everything else is one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpc_interp import DPCInterpError
from dpc_interp.errors import UnknownNameError
from dpc_interp.host.device import resolve_device, resolve_dtype


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As many GPUs as the parameter says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize("device", ["cpu", "CPU", " cpu ", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_each_way_to_name_the_cpu(device: str | torch.device) -> None:
    assert resolve_device(device) == "cpu"


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [
        (0, None, "cpu"),
        (1, None, "cuda"),
        (1, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
        (2, 1, "cuda:1"),
        (1, torch.device("cuda", 0), "cuda:0"),
        (1, "CUDA", "cuda"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_devices_that_the_machine_has(device: str | int | torch.device | None, expected: str) -> None:
    assert resolve_device(device) == expected


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (0, "cuda", r"device='cuda' needs a GPU .* finds none; give device=\"cpu\"$"),
        (0, 0, "device='cuda:0' needs a GPU"),
        (0, torch.device("cuda", 1), "device='cuda:1' needs a GPU"),
        (1, "cuda:7", r"device='cuda:7', but PyTorch finds 1 GPU\(s\), cuda:0 to cuda:0$"),
        (0, "gpu", "unknown device 'gpu'; known: cpu, cuda"),
        (0, "auto", "unknown device 'auto'"),
        (0, "", "unknown device ''"),
        (1, "cuda:x", "unknown device 'cuda:x'"),
        (1, "cuda:-1", "unknown device 'cuda:-1'"),
        (1, -1, "unknown device '-1'"),
        (0, "meta", "has no weights"),
        (0, "xpu", "device='xpu' cannot be used"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_devices_that_the_machine_lacks_are_one_line(device: str | int | torch.device, message: str) -> None:
    with pytest.raises(DPCInterpError, match=message) as caught:
        resolve_device(device)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has Apple's GPU")
def test_mps_is_one_line_where_there_is_none() -> None:
    with pytest.raises(DPCInterpError, match="device='mps' cannot be used with this machine"):
        resolve_device("mps")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bfloat16", torch.bfloat16),
        ("bf16", torch.bfloat16),
        ("torch.bfloat16", torch.bfloat16),
        ("BF16", torch.bfloat16),
        ("float16", torch.float16),
        ("half", torch.float16),
        ("fp32", torch.float32),
        ("float", torch.float32),
        (" double ", torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.float64, torch.float64),
    ],
)
def test_names_of_precisions(dtype: torch.dtype | str, expected: torch.dtype) -> None:
    assert resolve_dtype(dtype) is expected


@pytest.mark.parametrize(
    "dtype", ["int8", "auto", "4bit", "", torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_other_dtypes_are_one_line(dtype: torch.dtype | str) -> None:
    with pytest.raises(DPCInterpError, match=r"weights cannot have dtype=.*; give float32 \(fp32\), bfloat16 \(bf16\)"):
        resolve_dtype(dtype)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("dtype", [None, np.float32, 16])
def test_things_that_are_no_dtype_are_one_line(dtype: object) -> None:
    with pytest.raises(DPCInterpError, match="weights cannot have dtype="):
        resolve_dtype(dtype)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("device", [["cpu"], 1.5, True])
def test_things_that_are_no_device_are_one_line(device: object) -> None:
    with pytest.raises(UnknownNameError, match="unknown device"):
        resolve_device(device)
