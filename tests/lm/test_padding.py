"""Batches of any questions: padding on the left alone, and no instance lost or twice."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpc_interp.evaluation.stages import _parts
from dpc_interp.lm.decoding import left_padded
from dpc_interp.lm.generation import by_length
from dpc_interp.lm.soft_prompt import PLACEHOLDER, prompt_index, with_placeholders

TOKENS = st.lists(st.integers(1, 250), min_size=1, max_size=12)  # no PLACEHOLDER among them


@settings(max_examples=100, deadline=None, derandomize=True)
@given(asked=st.lists(TOKENS, min_size=1, max_size=6), n_virtual=st.integers(0, 5))
def test_every_row_is_padding_prompt_and_question(asked: list[list[int]], n_virtual: int) -> None:
    tokens, mask, starts = left_padded([torch.tensor(question) for question in asked], n_virtual)
    assert tokens.shape == mask.shape == (len(asked), n_virtual + max(map(len, asked)))
    for row, seen, start, question in zip(tokens.tolist(), mask.tolist(), starts.tolist(), asked, strict=True):
        assert row == [PLACEHOLDER] * (start + n_virtual) + question
        assert seen == [0] * start + [1] * (n_virtual + len(question))
    rows, columns = prompt_index(len(asked), n_virtual, starts)
    assert (tokens[rows, columns] == PLACEHOLDER).all()
    assert mask[rows, columns].all()
    assert columns.shape == (len(asked), n_virtual)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(question=TOKENS, n_rows=st.integers(1, 3), n_virtual=st.integers(0, 5))
def test_equal_lengths_need_no_padding(question: list[int], n_rows: int, n_virtual: int) -> None:
    rows = torch.tensor([question] * n_rows)
    tokens, mask, starts = left_padded(list(rows), n_virtual)
    assert torch.equal(tokens, with_placeholders(rows, n_virtual))
    assert mask.all()
    assert not starts.any()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(0, 9), max_size=30), size=st.integers(1, 40))
def test_shards_hold_every_instance_once_the_short_ones_first(lengths: list[int], size: int) -> None:
    parts = _parts(by_length(lengths), size)
    order = [i for part in parts for i in part]
    assert sorted(order) == list(range(len(lengths)))
    assert [(lengths[i], i) for i in order] == sorted((length, i) for i, length in enumerate(lengths))
    assert all(len(part) == size for part in parts[:-1])
    assert all(parts)
