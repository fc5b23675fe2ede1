"""The batch that is being decoded, for hooks that act on single rows.

During decoding the rows of a forward pass change: they are padded, they leave when they have ended, and a pass holds
only the newest positions. A hook that needs to know which row is which asks `current_batch()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class DecodingBatch:
    """The rows of a forward pass of `decode`.

    Attributes:
        rows: index of each row among the questions that were given to `decode`.
        starts: cache position at which the virtual tokens of each row start (without a prompt: its question). Cache
            positions count padding.
    """

    rows: Int[Tensor, " batch"]
    starts: Int[Tensor, " batch"]

    def keep(self, unfinished: Bool[Tensor, " batch"]) -> DecodingBatch:
        """The batch of the rows where `unfinished` is True."""
        return DecodingBatch(self.rows[unfinished], self.starts[unfinished])


_CURRENT_BATCH: ContextVar[DecodingBatch | None] = ContextVar("decoding_batch", default=None)


def current_batch() -> DecodingBatch | None:
    """The batch of the forward pass that is running; None outside of `decode`."""
    return _CURRENT_BATCH.get()


@contextmanager
def set_current_batch(batch: DecodingBatch) -> Iterator[None]:
    """Make `batch` the current batch inside a context.

    Args:
        batch: the rows of the forward passes inside.
    """
    token = _CURRENT_BATCH.set(batch)
    try:
        yield
    finally:
        _CURRENT_BATCH.reset(token)
