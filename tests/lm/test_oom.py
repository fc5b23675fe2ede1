"""`in_batches` with work that runs out of memory: halved, told, in order, and one line where nothing helps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpc_interp import DPCInterpError
from dpc_interp.lm.oom import in_batches

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds among the objects of a test session."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def no_more_than(most: int, error: BaseException, sizes: list[int]):
    def work(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > most:
            raise error
        return [2 * item for item in batch]

    return work


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_halves_once_for_all_that_follow(error: BaseException) -> None:
    sizes: list[int] = []
    with pytest.warns(UserWarning, match="did not hold 8 sequences at once; going on with 4") as told:
        found = list(in_batches(range(18), 8, no_more_than(5, error, sizes), "mend"))
    assert len(told) == 1
    assert sizes == [8, 4, 4, 4, 4, 2]
    assert [value for _, values in found for value in values] == [2 * i for i in range(18)]


@pytest.mark.filterwarnings("ignore:memory did not hold")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(n=st.integers(0, 40), batch_size=st.integers(1, 20), most=st.integers(1, 20))
def test_every_item_comes_once_and_in_order(n: int, batch_size: int, most: int) -> None:
    found = list(in_batches(range(n), batch_size, no_more_than(most, MemoryError(), []), "mend"))
    assert [item for batch, _ in found for item in batch] == list(range(n))
    assert [value for _, values in found for value in values] == [2 * i for i in range(n)]
    assert all(len(batch) <= most for batch, _ in found)


@pytest.mark.filterwarnings("ignore:memory did not hold")
def test_a_single_item_too_large_is_one_line() -> None:
    with pytest.raises(DPCInterpError, match=r"does not hold a single sequence; use checkpoint=True$"):
        list(in_batches(range(4), 4, no_more_than(0, MemoryError(), []), "use checkpoint=True"))


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="another defect"):
        list(in_batches(range(4), 4, no_more_than(0, RuntimeError("another defect"), []), "mend"))


def test_no_batch_size_below_one() -> None:
    with pytest.raises(DPCInterpError, match="batch_size is 0"):
        list(in_batches(range(4), 0, len, "mend"))


def test_a_batch_ends_where_it_is_told_to() -> None:
    sizes: list[int] = []
    with pytest.warns(UserWarning, match="did not hold 5"):
        found = list(in_batches(range(12), 8, no_more_than(4, MemoryError(), sizes), "mend", ends=[2, 7, 12]))
    assert [list(batch) for batch, _ in found] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9], [10, 11]]
