"""Batches by length: the cheapest cut, none on a GPU, values that do not depend on it, the prompt read once."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpc_interp import Problem, SoftPrompt, analyse, generate, with_rationale
from dpc_interp.analysis import batches
from dpc_interp.analysis.batches import cheapest, ends
from dpc_interp.lm.hooked import HookedModel


def cost(lengths: list[int], found: tuple[int, ...], a_pass: float) -> float:
    return sum(a_pass + (end - start) * lengths[end - 1] for start, end in pairwise((0, *found)))


def every_cut(n: int) -> list[tuple[int, ...]]:
    return [(*before, n) for size in range(1, n + 1) for before in every_cut(n - size)] if n else [()]


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=9).map(sorted),
    st.floats(0.0, 200.0, allow_subnormal=False),
)
def test_no_cut_is_cheaper(lengths: list[int], a_pass: float) -> None:
    found = tuple(cheapest(lengths, a_pass))
    assert found in every_cut(len(lengths))
    least = min(cost(lengths, cut, a_pass) for cut in every_cut(len(lengths)))
    assert cost(lengths, found, a_pass) == pytest.approx(least)


def test_padding_is_free_on_a_gpu(build) -> None:
    model = build("plain")
    lengths = [1] * 10 + [10**6] * 10
    assert ends(model, lengths, 16) == [10, 16, 20], "a long row is dearer than a pass"
    assert ends(model, lengths, 4) == [4, 8, 10, 12, 16, 20], "and batches of whole shards are those of the whole"
    model.cfg.device = "cuda"
    assert ends(model, lengths, 16) == [16, 20]
    assert ends(model, lengths, 10) == [10, 20]


def test_analysis_does_not_depend_on_the_cut(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]], monkeypatch
) -> None:
    runs = with_rationale(generate(model, problems, prompt, max_new_tokens=30, progress=False), model)
    found = {}
    for own in (0.0, 1e12):
        monkeypatch.setattr(batches, "OWN", own)
        passes.clear()
        found[own] = analyse(model, runs, prompt, batch_size=4, progress=False), list(passes)
    (alone, many), (together, few) = found.values()
    assert len(few) == 1 + -(-len(runs) // 4) < len(many)
    for told in (few, many):
        assert told[0] == (1, prompt.n_virtual), "the prompt is read first"
        assert (1, prompt.n_virtual) not in told[1:], "and once"
        assert sum(rows for rows, _ in told[1:]) == len(runs)
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(alone, name), getattr(together, name), rtol=1e-4, atol=1e-6)
