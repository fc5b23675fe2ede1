"""Hooks learn from `current_batch()` which rows a pass of the decoder holds and where their prompts start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import Problem, SoftPrompt
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.decoding_batch import DecodingBatch, current_batch, set_current_batch
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.hooked import HookedModel


def interrupt(is_inner: bool) -> None:
    assert is_inner
    raise KeyboardInterrupt


def test_the_rest_of_a_batch_has_its_own_rows_and_starts() -> None:
    batch = DecodingBatch(torch.tensor([0, 2, 5]), torch.tensor([7, 8, 9]))
    rest = batch.keep(torch.tensor([True, False, True]))
    assert (rest.rows.tolist(), rest.starts.tolist()) == ([0, 5], [7, 9])


def test_the_context_restores_the_batch_before_it() -> None:
    outer, inner = (DecodingBatch(torch.tensor([row]), torch.tensor([0])) for row in (1, 2))
    assert current_batch() is None
    with set_current_batch(outer):
        with pytest.raises(KeyboardInterrupt), set_current_batch(inner):
            interrupt(current_batch() is inner)
        assert current_batch() is outer
    assert current_batch() is None


def test_a_hook_sees_the_rows_of_every_pass(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    """In the prefill, each row has its prompt at its start; rows leave one after the other, in order."""
    questions = [encode_question(model, problem.question) for problem in problems]
    rows: list[list[int]] = []

    def check_batch(resid: Tensor, hook: HookPoint) -> None:
        batch = current_batch()
        assert batch is not None
        assert len(batch.rows) == len(batch.starts) == len(resid)
        if not rows:  # rotary positions: the residual stream starts as the embedding
            for row, start, question in zip(resid, batch.starts.tolist(), questions, strict=True):
                assert torch.equal(row[start : start + prompt.n_virtual], prompt.vectors)
                assert torch.equal(row[start + prompt.n_virtual :], model.W_E[question])
        rows.append(batch.rows.tolist())

    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", check_batch)]):
        generated = decode(model, questions, prompt.vectors, None, 24)
    assert current_batch() is None
    # token k of a row, but for its last one, is the input of pass k + 1 after the prefill
    lengths = [len(ids) for ids in generated]
    assert len(set(lengths)) > 3
    expected = [[i for i, length in enumerate(lengths) if length > n] for n in range(max(lengths))]
    assert rows == [list(range(len(problems))), *expected[1:]]
