r"""Boxes of LaTeX, in which answers are written: `\boxed{7}`, `\fbox{7}`, `\framebox{7}`, `\boxed7`, `\boxed\frac12`.

Braces may be nested. Boxes that only commas, `and` or `or` separate are one set: `$\boxed{x=5}$ and $\boxed{x=-3}$`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])(?:\s*\[[^\]]*\])*\s*")
ARGUMENT = r"\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\[A-Za-z]+|[^\s\\{}$])"
UNBRACED = re.compile(
    rf"-?\d+(?:,\d{{3}})*(?:\.\d+)?|\\[dt]?frac{ARGUMENT}{ARGUMENT}|\\sqrt{ARGUMENT}|\\text{ARGUMENT}|\\[A-Za-z]+|[A-Za-z]"
)
SEPARATOR = re.compile(
    r"(?i)(?:[\s$,;&*]|\\[()\[\],;:! ]|\\q?quad|(?:\\text\s*\{)?\s*\b(?:and|or|und|oder)\b\s*\}?)*"
    r"(?:\$?[a-z]\w?\s*=\s*\$?)?"
)


class Box(NamedTuple):
    """A box in a text.

    Attributes:
        start: index of its first character.
        end: index of the character after it.
        content: what stands in it, without white space around it.
    """

    start: int
    end: int
    content: str


def find_boxes(text: str) -> list[Box]:
    r"""Find the boxes of a text; boxes that belong to one set are merged.

    Args:
        text: a text with LaTeX.

    Returns:
        The boxes in order. An empty box, one that is not closed, and a box within a box are left out; contents of a set
        are joined by commas, without repetitions.
    """
    boxes: list[Box] = []
    contents: list[str] = []
    for match in BOX.finditer(text):
        box = _read(text, match)
        if box is None or (boxes and box.start < boxes[-1].end):
            continue
        if boxes and SEPARATOR.fullmatch(text, boxes[-1].end, box.start):
            contents = list(dict.fromkeys([*contents, box.content]))
            boxes[-1] = Box(boxes[-1].start, box.end, ", ".join(contents))
        else:
            contents = [box.content]
            boxes.append(box)
    return boxes


def closing_brace(text: str, start: int) -> int | None:
    r"""Find the brace that closes the one before `start`; `\{` and `\}` are symbols, not braces.

    Args:
        text: a text with LaTeX.
        start: index of the character after an opening brace.

    Returns:
        Index of the closing brace; None if the text ends before it.
    """
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _read(text: str, match: re.Match[str]) -> Box | None:
    if text[match.end() : match.end() + 1] == "{":
        stop = closing_brace(text, match.end() + 1)
        if stop is None:
            return None
        content = text[match.end() + 1 : stop].strip()
        inner = BOX.match(content)
        if inner and (box := _read(content, inner)) and box.end == len(content):
            content = box.content
        return Box(match.start(), stop + 1, content) if content else None
    bare = UNBRACED.match(text, match.end())
    return None if bare is None else Box(match.start(), bare.end(), bare[0])
