"""Every text of every task is encoded without an unknown token and decoded unchanged."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpc_interp.bundled.corpus import documents, equations_only
from dpc_interp.bundled.tokenizer import build_tokenizer
from dpc_interp.tasks.problem import SPLITS
from dpc_interp.tasks.registry import SYNTHETIC, load_problems


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerBase:
    return build_tokenizer(n_documents=3000)


def texts() -> list[str]:
    problems = [p for task in SYNTHETIC for split in SPLITS for p in load_problems(task, split, n=100)]
    stream = islice(documents(5), 300)
    return [
        *(text for p in problems for text in (p.question + "\n", p.rationale, equations_only(p))),
        *(text for document in stream for text in (document.prefix, document.response)),
    ]


@pytest.mark.parametrize("fixture", ["built", "tokenizer"])
def test_round_trip(fixture: str, request: pytest.FixtureRequest) -> None:
    """Of the tokenizer built here and of the one that ships with the reasoner."""
    tokenizer = request.getfixturevalue(fixture)
    for text in texts():
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text


def test_special_tokens_and_digits(built: PreTrainedTokenizerBase) -> None:
    assert (built.pad_token_id, built.bos_token_id, built.eos_token_id, built.unk_token_id) == (0, 1, 2, 3)
    assert len(built("1234").input_ids) == 5, "BOS, and one token a digit"
    assert len(built.get_vocab()) < 400
    assert {*"0123456789", *(f" {digit}" for digit in "0123456789")} <= set(built.get_vocab())


def test_most_frequent_tokens_come_first(built: PreTrainedTokenizerBase) -> None:
    counts = Counter()
    for document in islice(documents(0), 3000):
        for text in (document.prefix, document.question + "\n", document.response):
            counts.update(built(text, add_special_tokens=False).input_ids)
    frequencies = [counts[i] for i in range(4, len(built))]
    assert frequencies == sorted(frequencies, reverse=True)


def test_shipped_tokenizer_is_built_from_the_documents(tokenizer: PreTrainedTokenizerBase) -> None:
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_saved_tokenizer_is_the_same(built: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    built.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == built.get_vocab()
