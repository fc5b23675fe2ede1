"""Drafts of an answer: a likely text, of which a model that decodes reads some tokens ahead.

An answer that leaves its draft often goes on as it does, another number in it; so a draft is followed from wherever it
holds the token last written.
"""

from __future__ import annotations

from collections.abc import Sequence

AHEAD = 5
"""Tokens that are read ahead: more save passes and cost more work where they are refused."""


def ahead(draft: Sequence[int], written: Sequence[int], most: int) -> Sequence[int]:
    """What the draft has behind the token last written, at its place nearest to here; without one, what it has here."""
    here = len(written)
    places = [place for place, token in enumerate(draft, 1) if token == written[-1]]
    start = min(places, key=lambda place: abs(place - here), default=here)
    return draft[start : start + most]
