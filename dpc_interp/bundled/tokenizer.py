r"""The tokenizer of the bundled reasoner: word-level, with single digits.

A token is a word, a digit, a sign, a line break, `####` or `\boxed{`; words, digits and signs carry their leading
space. Every character of a text belongs to exactly one token, so decoding returns the text unchanged. BOS is put before
a text, as in training.
"""

from __future__ import annotations

from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dpc_interp.bundled.corpus import documents

TOKEN_PATTERN = r"\n|####|\\boxed\{| ?[A-Za-z]+| ?[0-9]| ?[^A-Za-z0-9\s]"
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}


def build_tokenizer(n_documents: int = 20_000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Build the tokenizer from training documents.

    Args:
        n_documents: number of documents that are read.
        seed: seed of the document stream.

    Returns:
        A tokenizer with four special tokens, all digits and every token of the documents, most frequent first.
    """
    splitter = pre_tokenizers.Split(Regex(TOKEN_PATTERN), "isolated")
    # digits are in the vocabulary even where a short stream does not contain one of them
    counts: dict[str, int] = {token: 0 for digit in "0123456789" for token in (digit, f" {digit}")}
    for document in islice(documents(seed), n_documents):
        for text in (document.prefix, document.question + "\n", document.response):
            for token, _ in splitter.pre_tokenize_str(text):
                counts[token] = counts.get(token, 0) + 1
    by_frequency = sorted(counts, key=lambda token: (-counts[token], token))
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS.values(), *by_frequency])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, vocabulary[bos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side="right", **SPECIAL_TOKENS
    )
