"""What the training loop is fed."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from dpc_interp.lm.loading import BUNDLED
from dpc_interp.reasoner.corpus import documents
from dpc_interp.reasoner.tokenizer import build_tokenizer
from dpc_interp.reasoner.train import CONTEXT_WEIGHT, batches, config, encode


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(n_documents=3000)


def test_response_starts_after_prefix_bos_and_question(tokenizer) -> None:
    docs = list(islice(documents(2), 50))
    for document, (ids, start) in zip(docs, encode(tokenizer, docs), strict=True):
        assert tokenizer.decode(ids[:start]) == f"{document.prefix}<bos>{document.question}\n"
        assert tokenizer.decode(ids[start:]) == f"{document.response}<eos>"


def test_weights_mark_context_response_and_padding(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr("dpc_interp.reasoner.train.POOL", 128)
    seen = 0
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
            seen += 1
    assert seen > 20


def test_bundled_model_has_the_stated_architecture() -> None:
    wanted = config(len(AutoTokenizer.from_pretrained(BUNDLED["reasoner"], local_files_only=True))).to_dict()
    shipped = AutoConfig.from_pretrained(BUNDLED["reasoner"], local_files_only=True).to_dict()
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_attention_heads",
    ):
        assert shipped[name] == wanted[name], name
