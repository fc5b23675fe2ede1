"""Which tokens of a draft are read ahead."""

from __future__ import annotations

import pytest

from dpc_interp.lm.drafts import ahead


@pytest.mark.parametrize(
    ("draft", "written", "expected"),
    [
        ([4, 5, 6, 7], [4], [5, 6]),
        ([4, 5, 6, 7, 8], [4, 9], [6, 7]),  # it lacks the token: one other than the draft's stands in its place
        ([4, 5, 6, 7, 8], [4, 9, 9, 6], [7, 8]),  # one more token, then as in the draft
        ([4, 5, 9, 6, 7, 8, 6, 3], [4, 5, 6], [7, 8]),  # one fewer: the nearest place
        ([6, 1, 2, 3, 3, 3, 6, 4], [3, 3, 3, 3, 6], [4]),
        ([4, 5], [4, 5], []),
        ([4, 5], [1, 2, 3], []),
        ([], [4], []),
    ],
)
def test_the_draft_is_followed(draft: list[int], written: list[int], expected: list[int]) -> None:
    assert ahead(draft, written, 2) == expected


def test_no_more_than_asked_for() -> None:
    assert ahead([4, 5, 6], [4], 0) == []
