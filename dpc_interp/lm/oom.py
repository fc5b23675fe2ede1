"""Batches that give way: where memory runs out the batch is halved, and stays so.

Any work that is done batch by batch, whose results do not depend on the batch, can go through `in_batches`.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from dpc_interp.errors import DPCInterpError

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU, or the allocator of the CPU, had no memory left."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def check_batch_size(batch_size: int) -> None:
    """Refuse to read nothing at a time."""
    if batch_size < 1:
        raise DPCInterpError(f"batch_size is {batch_size}; give at least 1")


def in_batches(
    items: Sequence[Item],
    batch_size: int,
    work: Callable[[Sequence[Item]], Result],
    mend: str,
    ends: Sequence[int] = (),
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Each batch of `items` with what `work` makes of it, in order.

    A batch that memory does not hold is taken again at half its size, with a warning, as are all that follow.

    Args:
        mend: what to do where a single item is too large, the end of the error's line.
        ends: where a batch ends at the latest, rising.

    Raises:
        DPCInterpError: a single item is too large, or `batch_size` is less than 1.
    """
    check_batch_size(batch_size)
    start = 0
    while start < len(items):
        batch = items[start : min(start + batch_size, next((end for end in ends if end > start), len(items)))]
        try:
            result = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise DPCInterpError(f"memory does not hold a single sequence; {mend}") from error
        else:
            yield batch, result
            start += len(batch)
            continue
        # the error, and with it the tensors of its frames, is gone here
        batch_size = (len(batch) + 1) // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(f"memory did not hold {len(batch)} sequences at once; going on with {batch_size}", stacklevel=2)
