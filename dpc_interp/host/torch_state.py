"""PyTorch's modes that a notebook may have set around a call, and that would change or break what the call computes.

With TransformerLens `torch.set_grad_enabled(False)` and `torch.set_default_device("cuda")` are usual, and
`torch.inference_mode()` is usual around generation. Public functions that compute tensors run within
`torch_defaults()`, so that they give the same numbers under all of these. The default dtype needs no context: every
tensor of the package that holds fractions is created with an explicit dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn import Module

from dpc_interp.errors import DPCInterpError


@contextmanager
def torch_defaults(*, gradients: bool = False) -> Iterator[None]:
    """A context, also usable as a decorator, in which tensors are created as in a fresh process.

    Inference mode is off, so that results can be part of an autograd graph later, and tensors without a stated device
    are on the CPU. The caller's modes are restored on exit. All of them belong to the calling thread.

    Args:
        gradients: whether operations are recorded for a backward pass, whatever the caller's mode.
    """
    cpu = torch.device("cpu")
    # a context for the device costs time in every operation, so it is entered only where the default is another one
    device = nullcontext() if torch.get_default_device() == cpu else cpu
    with torch.inference_mode(False), torch.set_grad_enabled(gradients), device:
        yield


def need_weights_with_gradients(model: Module) -> None:
    """Check that a backward pass can go through a model, and replace buffers through which it could not.

    A table that a model extended within `torch.inference_mode()`, as rotary embeddings do for longer texts, is replaced
    by a copy.

    Args:
        model: any model; its weights may be frozen.

    Raises:
        DPCInterpError: the weights were created within `torch.inference_mode()`.
    """
    for module in model.modules():
        if any(weight.is_inference() for weight in module.parameters(recurse=False)):
            raise DPCInterpError(
                "the model's weights were created within torch.inference_mode(), which keeps no gradients; "
                "load the model outside of it, or give copy.deepcopy(model)"
            )
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_inference():
                module._buffers[name] = buffer.clone()
