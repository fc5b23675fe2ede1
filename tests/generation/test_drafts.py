"""Which tokens of a draft are verified next."""

from __future__ import annotations

import pytest

from dpc_interp.generation.drafts import draft_continuation


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
