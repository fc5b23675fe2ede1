"""Which tokens of a draft are verified next."""

from __future__ import annotations

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


def lengths(shares: list[float]) -> list[int]:
    """Draft tokens a row of 20 rows, of which these shares are accepted in turn."""
    length, drawn = DraftLength(), []
    for share in shares:
        drawn.append(length.next())
        length.update(20 * drawn[-1], round(20 * drawn[-1] * share))
    return drawn


def test_drafts_grow_shorter_while_they_are_rejected() -> None:
    assert lengths([1.0, 0.4, 0.4, 0.4, 0.9]) == [MAX_DRAFT_TOKENS] * 5
    assert lengths([0.0] * 7) == [5, 5, 4, 2, 1, 0, 0], "the average share is 1, 1/2, 1/4, ..."
    never = lengths([0.0] * 40)
    assert never[8:] == [int(k % PROBE_EVERY == 0) for k in range(9, 41)], "one token is tried at times"


def test_drafts_grow_again_when_they_are_accepted() -> None:
    assert lengths([0.0] * 7 + [1.0] * 3)[-3:] == [1, 5, 5]
