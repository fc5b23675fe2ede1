"""The reasoner's tokenizer: words, single digits and signs, each with its leading space, so that decoding is exact."""

from __future__ import annotations

from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dpc_interp.reasoner.corpus import documents

PIECE = r"\n|####|\\boxed\{| ?[A-Za-z]+| ?[0-9]| ?[^A-Za-z0-9\s]"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}


def build_tokenizer(n_documents: int = 20_000, seed: int = 0) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over every piece that occurs in `n_documents` training documents, most frequent first."""
    splitter = pre_tokenizers.Split(Regex(PIECE), "isolated")
    counts: dict[str, int] = {piece: 0 for digit in "0123456789" for piece in (digit, f" {digit}")}
    for doc in islice(documents(seed), n_documents):
        for text in (doc.prefix, doc.question + "\n", doc.response):
            for piece, _ in splitter.pre_tokenize_str(text):
                counts[piece] = counts.get(piece, 0) + 1
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL.values(), *pieces])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    core.pre_tokenizer = splitter
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, padding_side="right", **SPECIAL
    )
