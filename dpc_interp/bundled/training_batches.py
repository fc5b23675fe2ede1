"""Training batches of the bundled reasoner: documents as token ids, with a loss weight for each token.

The weight of a response token is 1, that of a prefix or question token is `CONTEXT_WEIGHT`, and that of padding is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from dpc_interp.bundled.corpus import Document, documents

CONTEXT_WEIGHT = 0.1
"""Loss weight of prefix and question tokens."""
POOL_SIZE = 2048
"""Documents sorted by length together, so that a batch is not mostly padding."""


def encode_documents(tokenizer: PreTrainedTokenizerFast, docs: list[Document]) -> list[tuple[list[int], int]]:
    """Encode documents as `prefix <bos> question response <eos>`.

    Args:
        tokenizer: of `build_tokenizer`.
        docs: to encode.

    Returns:
        For each document its token ids, and the position of its first response token.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    prefixes = tokenizer([doc.prefix for doc in docs], add_special_tokens=False).input_ids
    questions = tokenizer([doc.question + "\n" for doc in docs], add_special_tokens=False).input_ids
    responses = tokenizer([doc.response for doc in docs], add_special_tokens=False).input_ids
    return [
        ([*prefix, bos, *question, *response, eos], len(prefix) + 1 + len(question))
        for prefix, question, response in zip(prefixes, questions, responses, strict=True)
    ]


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, batch_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The endless stream of training batches of a seed.

    Args:
        tokenizer: of `build_tokenizer`.
        seed: seed of the documents and of the order of the batches.
        batch_tokens: tokens of a batch, about, with its padding.

    Yields:
        tokens [batch, pos], and the loss weight of each token [batch, pos]; padding has weight 0.
    """
    stream = documents(seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        encoded = encode_documents(tokenizer, list(islice(stream, POOL_SIZE)))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for row in sorted(encoded, key=lambda row: len(row[0])):
            if (len(groups[-1]) + 1) * len(row[0]) > batch_tokens:
                groups.append([])
            groups[-1].append(row)
        for i in torch.randperm(len(groups), generator=generator).tolist():
            yield _pad(groups[i])


def _pad(rows: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """Tokens and loss weights of one batch, padded on the right to a multiple of 8, so that fewer shapes occur."""
    width = -(-max(len(ids) for ids, _ in rows) // 8) * 8
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    weight = torch.zeros(len(rows), width, dtype=torch.float32)
    for k, (ids, response_start) in enumerate(rows):
        tokens[k, : len(ids)] = torch.tensor(ids)
        weight[k, :response_start] = CONTEXT_WEIGHT
        weight[k, response_start : len(ids)] = 1.0
    return tokens, weight


class BatchDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """`batches` as a data set, so that a `DataLoader` can prepare them in another process.

    Args:
        tokenizer: of `build_tokenizer`.
        seed: see `batches`.
        batch_tokens: see `batches`.
        skip: number of batches to leave out because a resumed run has already read them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, batch_tokens: int, skip: int) -> None:
        self.tokenizer, self.seed, self.batch_tokens, self.skip = tokenizer, seed, batch_tokens, skip

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(batches(self.tokenizer, self.seed, self.batch_tokens), self.skip, None)
