"""Draft tokens for speculative decoding, taken from a text that is likely to resemble the answer.

An answer that departs from its draft often continues in the same way afterwards, with another number in it. So the
draft is followed from any place where it holds the token that was generated last, not from equal positions only.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_DRAFT_TOKENS = 5
"""Draft tokens of a row in one pass: more of them save passes where they are accepted, and cost more where not."""


def draft_continuation(draft: Sequence[int], generated: Sequence[int], max_tokens: int) -> Sequence[int]:
    """Choose the draft tokens that are verified next.

    Args:
        draft: all tokens of the draft.
        generated: the tokens generated so far, at least one.
        max_tokens: the most tokens to return.

    Returns:
        The draft tokens after the occurrence of the last generated token nearest this position; where the draft lacks
        that token, those at this position.
    """
    position = len(generated)
    continuations = [start for start, token in enumerate(draft, 1) if token == generated[-1]]
    start = min(continuations, key=lambda start: abs(start - position), default=position)
    return draft[start : start + max_tokens]
