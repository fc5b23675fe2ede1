r"""Boxes of LaTeX, in which answers are written: `\boxed{7}`, `\fbox{7}`, `\framebox{7}`, `\boxed7`, `\boxed\frac12`.

Braces may be nested. Boxes that only commas, `and` or `or` separate are one set: `$\boxed{x=5}$ and $\boxed{x=-3}$`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])(?:\s*\[[^\[\]]*\])*\s*")
ARGUMENT = r"\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\[A-Za-z]+|[^\s\\{}$])"
UNBRACED = re.compile(
    rf"-?\d+(?:,\d{{3}})*(?:\.\d+)?|\\[dt]?frac{ARGUMENT}{ARGUMENT}|\\sqrt{ARGUMENT}|\\text{ARGUMENT}|\\[A-Za-z]+|[A-Za-z]"
)
UNBRACED_BOX = re.compile(rf"{BOX.pattern}(?P<content>{UNBRACED.pattern})")
INNER_BOX = re.compile(rf"\s*{BOX.pattern}(?=\{{)")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
SEPARATOR = re.compile(
    r"(?i)(?:[\s$,;&*]|\\[()\[\],;:! ]|\\q?quad|\\text\s*\{\s*(?:and|or|und|oder)\s*\}|\b(?:and|or|und|oder)\b)*"
    r"(?:\$?[a-z]\w?\s*=\s*\$?)?"
)


class Box(NamedTuple):
    """A box in a text.

    Attributes:
        start: index of its first character.
        end: index of the character after it.
        content: what is in it, without white space around it.
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
    closing = closing_braces(text)
    boxes: list[Box] = []
    contents: list[str] = []
    for match in BOX.finditer(text):
        if boxes and match.start() < boxes[-1].end:
            continue
        box = _read(text, match, closing)
        if box is None:
            continue
        if boxes and SEPARATOR.fullmatch(text, boxes[-1].end, box.start):
            contents = list(dict.fromkeys([*contents, box.content]))
            boxes[-1] = Box(boxes[-1].start, box.end, ", ".join(contents))
        else:
            contents = [box.content]
            boxes.append(box)
    return boxes


def without_boxes(text: str) -> str:
    r"""Remove the commands of boxes: `\boxed{7}` becomes `{7}`, and so does `\boxed7`.

    Args:
        text: a text with LaTeX.

    Returns:
        The text with the contents of its boxes in braces.
    """
    return BOX.sub("", UNBRACED_BOX.sub(lambda match: f"{{{match['content']}}}", text))


def closing_braces(text: str) -> dict[int, int]:
    r"""Match the braces of a text in one pass; `\{` and `\}` are symbols, not braces.

    Args:
        text: a text with LaTeX.

    Returns:
        Maps the index of each opening brace that is closed to the index of its closing brace.
    """
    closing: dict[int, int] = {}
    unclosed: list[int] = []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            unclosed.append(match.start())
        elif match[0] == "}" and unclosed:
            closing[unclosed.pop()] = match.start()
    return closing


def _read(text: str, match: re.Match[str], closing: dict[int, int]) -> Box | None:
    """The box of a match of `BOX`; of boxes that contain nothing but a box, the innermost content."""
    if not text.startswith("{", match.end()):
        bare = UNBRACED_BOX.match(text, match.start())
        return None if bare is None else Box(match.start(), bare.end(), bare["content"])
    opening, stop = match.end(), closing.get(match.end())
    if stop is None:
        return None
    end = stop + 1
    while (inner := INNER_BOX.match(text, opening + 1, stop)) and inner.end() in closing:
        if text[closing[inner.end()] + 1 : stop].strip():
            break
        opening, stop = inner.end(), closing[inner.end()]
    content = text[opening + 1 : stop].strip()
    if bare := UNBRACED_BOX.fullmatch(content):
        content = bare["content"]
    return Box(match.start(), end, content) if content else None
