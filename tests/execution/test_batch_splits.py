"""Batches by length: the cheapest split, none on a GPU, and results that do not depend on it."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpc_interp import Problem, SoftPrompt, analyse, drop_empty_rationales, generate
from dpc_interp.execution import batch_splits
from dpc_interp.execution.batch_splits import by_length, cheapest_batch_ends, cheapest_split
from dpc_interp.models.hooked import HookedModel


def cost(lengths: list[int], split: tuple[int, ...], pass_cost: float) -> float:
    """Tokens with padding, plus the cost of each pass."""
    return sum(pass_cost + (end - start) * lengths[end - 1] for start, end in pairwise((0, *split)))


def every_split(n: int) -> list[tuple[int, ...]]:
    """The ends of the batches, for every split of n sequences."""
    return [(*before, n) for size in range(1, n + 1) for before in every_split(n - size)] if n else [()]


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=9).map(sorted),
    st.floats(0.0, 200.0, allow_subnormal=False),
)
def test_no_split_is_cheaper(lengths: list[int], pass_cost: float) -> None:
    splits = every_split(len(lengths))
    chosen = tuple(cheapest_split(lengths, pass_cost))
    assert chosen in splits
    assert cost(lengths, chosen, pass_cost) == pytest.approx(min(cost(lengths, split, pass_cost) for split in splits))


def test_a_split_by_hand() -> None:
    """Padding two sequences of 10 tokens to 50 costs 80: more than a pass of 79, less than one of 81."""
    assert cheapest_split([10, 10, 50], 79) == [2, 3]
    assert cheapest_split([10, 10, 50], 81) == [3]


def test_shorter_sequences_come_first_and_equal_ones_in_order() -> None:
    assert by_length([7, 3, 7, 5, 3]) == [1, 4, 3, 0, 2]


def test_batches_are_split_on_a_cpu_only(build) -> None:
    model = build("plain")
    lengths = [1] * 10 + [10**6] * 10
    assert cheapest_batch_ends(model, lengths, 16) == [10, 16, 20], "padding short rows costs more than a pass"
    assert cheapest_batch_ends(model, lengths, 4) == [4, 8, 10, 12, 16, 20]
    model.cfg.device = "cuda"
    assert cheapest_batch_ends(model, lengths, 16) == [16, 20]
    assert cheapest_batch_ends(model, lengths, 10) == [10, 20]


def test_a_shard_of_complete_batches_has_the_batches_of_the_list(build) -> None:
    model, lengths = build("plain"), [10**k for k in range(8) for _ in range(3)]
    shards = [cheapest_batch_ends(model, lengths[start : start + 8], 4) for start in range(0, 24, 8)]
    joined = [8 * i + end for i, ends in enumerate(shards) for end in ends]
    assert joined == cheapest_batch_ends(model, lengths, 4)


def test_analysis_does_not_depend_on_the_split(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]], monkeypatch
) -> None:
    runs = drop_empty_rationales(model, generate(model, problems, prompt, max_new_tokens=30, progress=False))
    analyses, n_batches = [], []
    for pass_overhead in (0.0, 1e12):
        monkeypatch.setattr(batch_splits, "PASS_OVERHEAD", pass_overhead)
        passes.clear()
        analyses.append(analyse(model, runs, prompt, batch_size=4, progress=False))
        assert passes[0] == (1, prompt.n_virtual), "the prompt is read first"
        assert (1, prompt.n_virtual) not in passes[1:], "and once"
        assert sum(rows for rows, _ in passes[1:]) == len(runs)
        n_batches.append(len(passes) - 1)
    assert n_batches[0] > n_batches[1] == -(-len(runs) // 4)
    for name in ("flow", "accumulation", "tokens", "instances"):
        split, unsplit = (getattr(analysis, name) for analysis in analyses)
        pd.testing.assert_frame_equal(split, unsplit, rtol=1e-4, atol=1e-6)
