"""Batches that run out of memory are halved with a warning; results stay in order; the last error is one line."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpc_interp import DPCInterpError
from dpc_interp.execution.backoff import batches_with_backoff, check_batch_size, is_out_of_memory

HINT = "use a smaller dtype"
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage collection takes seconds among the objects of a test session."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def at_most(limit: int, error: BaseException, sizes: list[int]):
    """Work that doubles each item, and raises `error` for more than `limit` items at once."""

    def work(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise error
        return [2 * item for item in batch]

    return work


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_a_halved_size_is_used_for_all_later_batches(error: BaseException) -> None:
    sizes: list[int] = []
    with pytest.warns(UserWarning, match="8 sequences did not fit into memory; continuing with 4") as warned:
        results = list(batches_with_backoff(range(18), 8, at_most(5, error, sizes), HINT))
    assert len(warned) == 1
    assert sizes == [8, 4, 4, 4, 4, 2]
    assert [value for _, values in results for value in values] == [2 * i for i in range(18)]


@pytest.mark.filterwarnings("ignore:.* did not fit into memory")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(n=st.integers(0, 40), batch_size=st.integers(1, 20), limit=st.integers(1, 20))
def test_every_item_comes_once_and_in_order(n: int, batch_size: int, limit: int) -> None:
    results = list(batches_with_backoff(range(n), batch_size, at_most(limit, MemoryError(), []), HINT))
    assert [item for batch, _ in results for item in batch] == list(range(n))
    assert [value for _, values in results for value in values] == [2 * i for i in range(n)]
    assert all(len(batch) <= limit for batch, _ in results)


@pytest.mark.filterwarnings("ignore:.* did not fit into memory")
def test_a_single_item_that_is_too_large_is_one_line_with_the_hint() -> None:
    with pytest.raises(DPCInterpError, match=f"^a single sequence does not fit into memory; {HINT}$"):
        list(batches_with_backoff(range(4), 4, at_most(0, MemoryError(), []), HINT))


def test_other_errors_are_raised_unchanged() -> None:
    with pytest.raises(RuntimeError, match="another defect"):
        list(batches_with_backoff(range(4), 4, at_most(0, RuntimeError("another defect"), []), HINT))


def test_only_memory_errors_count_as_out_of_memory() -> None:
    assert all(is_out_of_memory(error) for error in ERRORS)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError("can't allocate memory"))


def test_a_batch_size_below_one_is_an_error() -> None:
    with pytest.raises(DPCInterpError, match="batch_size is 0; give at least 1"):
        list(batches_with_backoff(range(4), 0, len, HINT))
    with pytest.raises(DPCInterpError, match="batch_size is -1"):
        check_batch_size(-1)
    check_batch_size(1)


def test_no_batch_crosses_a_given_end() -> None:
    with pytest.warns(UserWarning, match="5 sequences did not fit"):
        results = list(batches_with_backoff(range(12), 8, at_most(4, MemoryError(), []), HINT, batch_ends=[2, 7, 12]))
    assert [list(batch) for batch, _ in results] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9], [10, 11]]
