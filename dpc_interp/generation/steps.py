"""Where the steps of a rationale end: at its lines, or at its sentences where it is a single line."""

from __future__ import annotations

import re

LINE_END = re.compile(r"\n\s*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


def step_ends(text: str) -> list[int]:
    """The characters at which the steps of `text` end, in order; the last one is the end of the text."""
    body = text.rstrip()
    if "\n" in body:
        ends = [match.end() for match in LINE_END.finditer(body) if body[: match.start()].strip()]
    else:
        ends = [match.end() for match in SENTENCE_END.finditer(body)]
    return [*(end for end in ends if end < len(body)), len(text)]
