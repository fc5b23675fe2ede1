"""Every text of every task is read without an unknown piece, and written again as it was."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpc_interp.reasoner.corpus import documents, terse
from dpc_interp.reasoner.tokenizer import build_tokenizer
from dpc_interp.tasks.problems import SPLITS, SYNTHETIC, load_problems


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerBase:
    return build_tokenizer(n_documents=3000)


def texts() -> list[str]:
    problems = [p for task in SYNTHETIC for split in SPLITS for p in load_problems(task, split, n=100)]
    stream = islice(documents(5), 300)
    return [
        *(text for p in problems for text in (p.question + "\n", p.rationale, terse(p))),
        *(text for document in stream for text in (document.prefix, document.response)),
    ]


@pytest.mark.parametrize("which", ["built", "tokenizer"])
def test_round_trip(which: str, request: pytest.FixtureRequest) -> None:
    """The one built here and the one that ships with the reasoner."""
    tokenizer = request.getfixturevalue(which)
    for text in texts():
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text


def test_special_tokens_and_digits(built: PreTrainedTokenizerBase) -> None:
    assert (built.pad_token_id, built.bos_token_id, built.eos_token_id, built.unk_token_id) == (0, 1, 2, 3)
    assert len(built("1234").input_ids) == 4, "one digit is one token"
    assert len(built.get_vocab()) < 400
    assert {*"0123456789", *(f" {digit}" for digit in "0123456789")} <= set(built.get_vocab())


def test_same_on_every_machine(built: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    assert build_tokenizer(n_documents=3000).get_vocab() == built.get_vocab()
    built.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == built.get_vocab()
