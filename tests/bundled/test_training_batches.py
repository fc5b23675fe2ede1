"""The batches that the training loop reads."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp.bundled.corpus import documents
from dpc_interp.bundled.training_batches import CONTEXT_WEIGHT, BatchDataset, batches, encode_documents


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpc_interp.bundled.training_batches.POOL_SIZE", 128)


def test_response_starts_after_prefix_bos_and_question(tokenizer: PreTrainedTokenizerBase) -> None:
    docs = list(islice(documents(2), 50))
    for document, (ids, start) in zip(docs, encode_documents(tokenizer, docs), strict=True):
        assert tokenizer.decode(ids[:start]) == f"{document.prefix}<bos>{document.question}\n"
        assert tokenizer.decode(ids[start:]) == f"{document.response}<eos>"


def test_weights_mark_context_response_and_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    n_rows = 0
    for tokens, weight in islice(batches(tokenizer, 0, 2048), 4):
        assert tokens.shape == weight.shape
        assert tokens.shape[0] * tokens.shape[1] < 2048 + 8 * tokens.shape[0]
        for ids, w in zip(tokens, weight, strict=True):
            length = int((ids == tokenizer.eos_token_id).nonzero()[0]) + 1
            bos = int((ids == tokenizer.bos_token_id).nonzero()[0])
            start = int((w == 1).nonzero()[0])
            assert bos < start
            assert tokenizer.decode(ids[start - 1]).endswith("\n"), "the question ends with its line break"
            assert torch.equal(w[:start], torch.full((start,), CONTEXT_WEIGHT))
            assert (w[start:length] == 1).all()
            assert not w[length:].any()
            assert (ids[length:] == tokenizer.pad_token_id).all()
            n_rows += 1
    assert n_rows > 20


def test_a_pool_is_read_exactly_once(tokenizer: PreTrainedTokenizerBase) -> None:
    expected = sorted(tuple(ids) for ids, _ in encode_documents(tokenizer, list(islice(documents(0), 128))))
    rows: list[tuple[int, ...]] = []
    for tokens, weight in batches(tokenizer, 0, 2048):
        rows += [tuple(ids[w > 0].tolist()) for ids, w in zip(tokens, weight, strict=True)]
        if len(rows) >= 128:
            break
    assert sorted(rows) == expected


def test_data_set_skips_the_batches_already_read(tokenizer: PreTrainedTokenizerBase) -> None:
    expected = list(islice(batches(tokenizer, 0, 2048), 5))[3:]
    resumed = list(islice(BatchDataset(tokenizer, 0, 2048, skip=3), 2))
    for (tokens, weight), (expected_tokens, expected_weight) in zip(resumed, expected, strict=True):
        assert torch.equal(tokens, expected_tokens)
        assert torch.equal(weight, expected_weight)
