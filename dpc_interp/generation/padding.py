"""Batches of rows of different lengths: left-padded to be decoded, right-padded to extend a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from dpc_interp.prompts.embed_hooks import PLACEHOLDER


class LeftPadded(NamedTuple):
    """A batch whose rows end at the same position: `padding | placeholders | question`.

    Attributes:
        tokens: ids; padding and virtual tokens hold `PLACEHOLDER`.
        mask: 0 on padding, else 1.
        starts: position of the first token of each row that is not padding, a virtual token where there are any.
    """

    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    starts: Int[Tensor, " batch"]


class RightPadded(NamedTuple):
    """A batch whose rows start at the same position.

    Attributes:
        tokens: ids; padding holds `PLACEHOLDER`.
        mask: 0 on padding, else 1.
    """

    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]


def left_padded(questions: Sequence[Int[Tensor, " _"]], n_virtual: int) -> LeftPadded:
    """Pad questions on the left, with placeholders for a soft prompt directly before each.

    Args:
        questions: token ids of each row.
        n_virtual: placeholders before each question; 0: none.

    Returns:
        Tokens, mask and the start of each row.
    """
    width = n_virtual + max(len(question) for question in questions)
    starts = torch.tensor([width - n_virtual - len(question) for question in questions])
    tokens = torch.full((len(questions), width), PLACEHOLDER)
    for row, question in enumerate(questions):
        tokens[row, width - len(question) :] = question
    return LeftPadded(tokens, (torch.arange(width) >= starts[:, None]).long(), starts)


def right_padded(rows: Sequence[Sequence[int]]) -> RightPadded:
    """Pad rows of token ids on the right.

    Args:
        rows: token ids of each row.

    Returns:
        Tokens and mask.
    """
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[PLACEHOLDER] * (width - len(row))] for row in rows])
    return RightPadded(tokens, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]))
