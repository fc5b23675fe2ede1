"""Which tokens of a draft are verified next."""

from __future__ import annotations

import math

import pytest

from dpc_interp.generation.drafts import MAX_DRAFT_TOKENS, PROBE_EVERY, DraftLength, draft_continuation


@pytest.mark.parametrize(
    ("draft", "generated", "expected"),
    [
        ([4, 5, 6, 7], [4], [5, 6]),
        ([4, 5, 6, 7, 8], [4, 9], [6, 7]),  # the draft lacks 9: one token was replaced, so continue at this position
        ([4, 5, 6, 7, 8], [4, 9, 9, 6], [7, 8]),  # one token more than in the draft, then the same again
        ([4, 5, 9, 6, 7, 8, 6, 3], [4, 5, 6], [7, 8]),  # one token fewer: the nearer of two occurrences of 6
        ([6, 1, 2, 3, 3, 3, 6, 4], [3, 3, 3, 3, 6], [4]),
        ([4, 5], [4, 5], []),  # the end of the draft
        ([4, 5], [1, 2, 3], []),  # past the end of the draft
        ([], [4], []),
    ],
)
def test_the_draft_is_followed(draft: list[int], generated: list[int], expected: list[int]) -> None:
    assert draft_continuation(draft, generated, 2) == expected


@pytest.mark.parametrize("max_tokens", range(4))
def test_at_most_max_tokens(max_tokens: int) -> None:
    assert draft_continuation([4, 5, 6], [4], max_tokens) == [5, 6][:max_tokens]


def lengths(shares: list[float], pass_cost: float = math.inf, n_rows: int = 20) -> list[int]:
    """Draft tokens a row of 20 rows, of which these shares are accepted in turn."""
    length, drawn = DraftLength(pass_cost), []
    for share in shares:
        drawn.append(length.next(n_rows))
        length.update(n_rows * drawn[-1], round(n_rows * drawn[-1] * share))
    return drawn


def test_drafts_grow_shorter_while_they_are_rejected() -> None:
    assert lengths([1.0, 0.4, 0.4, 0.4, 0.9]) == [MAX_DRAFT_TOKENS] * 5
    assert lengths([0.0] * 7) == [5, 5, 4, 2, 1, 0, 0], "the average share is 1, 1/2, 1/4, ..."
    never = lengths([0.0] * 40)
    assert never[8:] == [int(k % PROBE_EVERY == 0) for k in range(9, 41)], "one token is tried at times"


def test_more_must_be_accepted_where_tokens_cost_more_than_a_pass() -> None:
    """Of 80 tokens a pass that costs as much as 20 of them, 4 of 5 draft tokens."""
    assert lengths([0.8] * 9, pass_cost=20, n_rows=80) == [5] * 9
    assert lengths([0.4] * 7, pass_cost=20, n_rows=80)[-2:] == [0, 0], "half of what is needed"
    assert lengths([0.4] * 9, pass_cost=20, n_rows=5) == [5] * 9


def test_drafts_grow_again_when_they_are_accepted() -> None:
    assert lengths([0.0] * 7 + [1.0] * 3)[-3:] == [1, 5, 5]
