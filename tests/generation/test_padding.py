"""Batches of any rows: padding on one side only, marked in the mask."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpc_interp.generation.padding import left_padded, right_padded
from dpc_interp.prompts.embed_hooks import PLACEHOLDER, prompt_index, with_placeholders

ROW = st.lists(st.integers(1, 250), min_size=1, max_size=12)  # PLACEHOLDER, 0, is not among them


@settings(max_examples=100, deadline=None, derandomize=True)
@given(questions=st.lists(ROW, min_size=1, max_size=6), n_virtual=st.integers(0, 5))
def test_left_padded_rows_are_padding_prompt_and_question(questions: list[list[int]], n_virtual: int) -> None:
    tokens, mask, starts = left_padded([torch.tensor(question) for question in questions], n_virtual)
    assert tokens.shape == mask.shape == (len(questions), n_virtual + max(map(len, questions)))
    for row, visible, start, question in zip(tokens.tolist(), mask.tolist(), starts.tolist(), questions, strict=True):
        assert row == [PLACEHOLDER] * (start + n_virtual) + question
        assert visible == [0] * start + [1] * (n_virtual + len(question))
    index = prompt_index(len(questions), n_virtual, starts)
    assert (tokens[index] == PLACEHOLDER).all()
    assert mask[index].all()
    assert tokens[index].shape == (len(questions), n_virtual)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(question=ROW, n_rows=st.integers(1, 3), n_virtual=st.integers(0, 5))
def test_equal_lengths_need_no_padding(question: list[int], n_rows: int, n_virtual: int) -> None:
    rows = torch.tensor([question] * n_rows)
    tokens, mask, starts = left_padded(list(rows), n_virtual)
    assert torch.equal(tokens, with_placeholders(rows, n_virtual))
    assert mask.all()
    assert not starts.any()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_right_padded_rows_are_tokens_and_padding(rows: list[list[int]]) -> None:
    tokens, mask = right_padded(rows)
    width = max(map(len, rows))
    for row, padded, visible in zip(rows, tokens.tolist(), mask.tolist(), strict=True):
        assert padded == row + [PLACEHOLDER] * (width - len(row))
        assert visible == [1] * len(row) + [0] * (width - len(row))
