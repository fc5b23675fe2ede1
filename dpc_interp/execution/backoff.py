"""Batches that are halved when memory runs out.

Any work whose results do not depend on how it is batched can go through `batches_with_backoff`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from dpc_interp.errors import DPCInterpError

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that a GPU, or the allocator of the CPU, ran out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


def check_batch_size(batch_size: int) -> None:
    """Raise `DPCInterpError` for a batch size below 1."""
    if batch_size < 1:
        raise DPCInterpError(f"batch_size is {batch_size}; give at least 1")


def batches_with_backoff(
    items: Sequence[Item],
    batch_size: int,
    work: Callable[[Sequence[Item]], Result],
    hint: str,
    batch_ends: Sequence[int] = (),
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Yield each batch of `items` with the result of `work`, in order.

    A batch that does not fit into memory is tried again at half its size, with a warning, and so are all later ones.

    Args:
        items: all inputs.
        batch_size: maximum number of items in a batch.
        work: computes one batch; its results must not depend on how items are batched.
        hint: what the user can do if a single item is too large; the end of the error message.
        batch_ends: ascending indices that no batch crosses.

    Yields:
        A batch and its result.

    Raises:
        DPCInterpError: a single item is too large, or `batch_size` is less than 1.
    """
    check_batch_size(batch_size)
    start = 0
    while start < len(items):
        batch = items[start : min(start + batch_size, next((end for end in batch_ends if end > start), len(items)))]
        try:
            result = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise DPCInterpError(f"a single sequence does not fit into memory; {hint}") from error
        else:
            yield batch, result
            start += len(batch)
            continue
        # outside of `except`, because the traceback of the error holds the tensors of the failed batch
        batch_size = (len(batch) + 1) // 2
        clear_device_cache(garbage_collection=True)
        warnings.warn(f"{len(batch)} sequences did not fit into memory; continuing with {batch_size}", stacklevel=2)
