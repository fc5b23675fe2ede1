"""Devices and precisions by name, checked before any long work.

A device may be given as PyTorch's text (`cpu`, `cuda`, `cuda:1`, `mps`), as a `torch.device` or as the index of a GPU,
a precision as a `torch.dtype` or by one of its names.
"""

from __future__ import annotations

from types import MappingProxyType

import torch

from dpc_interp.errors import DPCInterpError, UnknownNameError

Device = str | int | torch.device
"""What `load_model` accepts as a device."""

PRECISIONS = MappingProxyType(
    {
        torch.float32: ("float32", "fp32", "f32", "float"),
        torch.bfloat16: ("bfloat16", "bf16"),
        torch.float16: ("float16", "fp16", "f16", "half"),
        torch.float64: ("float64", "fp64", "f64", "double"),
    }
)
"""Supported precision of weights -> its names."""


def resolve_device(device: Device | None) -> str:
    """Check that this machine has a device.

    Args:
        device: text, a `torch.device`, or the index of a GPU; None: a GPU if the machine has one, else the CPU.

    Returns:
        PyTorch's text of the device: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        DPCInterpError: an unknown device, or one that this machine does not have.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    given = f"cuda:{device}" if isinstance(device, int) else str(device).strip().lower()
    try:
        parsed = torch.device(given)
    except RuntimeError as error:
        raise UnknownNameError("device", str(device), ["cpu", "cuda", "cuda:0", "mps"]) from error
    if parsed.type == "cpu":
        return "cpu"
    if parsed.type == "meta":
        raise DPCInterpError('a model on the device "meta" has no weights; give device="cpu" or "cuda"')
    if parsed.type == "cuda":
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not n_gpus:
            raise DPCInterpError(
                f'device={given!r} needs a GPU that PyTorch can use, and finds none; give device="cpu"'
            )
        if (parsed.index or 0) >= n_gpus:
            raise DPCInterpError(f"device={given!r}, but PyTorch finds {n_gpus} GPU(s), cuda:0 to cuda:{n_gpus - 1}")
        return given
    try:
        torch.zeros(1, device=parsed)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise DPCInterpError(
            f'device={given!r} cannot be used with this machine and this build of PyTorch; give device="cpu"'
        ) from error
    return given


def resolve_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The precision of weights that a name stands for.

    Args:
        dtype: a `torch.dtype`, or a name such as `bfloat16`, `bf16`, `torch.bfloat16`.

    Raises:
        DPCInterpError: an unknown name, or a dtype in which a model cannot be run and differentiated.
    """
    names = {name: precision for precision, all_names in PRECISIONS.items() for name in all_names}
    if isinstance(dtype, str):
        name = dtype.strip().lower().removeprefix("torch.")
        if name in names:
            return names[name]
    if isinstance(dtype, torch.dtype) and dtype in PRECISIONS:
        return dtype
    short = ", ".join(f"{all_names[0]} ({all_names[1]})" for all_names in PRECISIONS.values())
    raise DPCInterpError(f"weights cannot have dtype={str(dtype)!r}; give {short}")
