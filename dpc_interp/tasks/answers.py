r"""What counts as the answer of a text: the marker of its task, read from the last marked line.

`#### 17` (story, rule, GSM8K), `The answer is B` (choice, AQuA), `\boxed{7}` (algebra, MATH).
"""

from __future__ import annotations

import re

MARKERS = (
    re.compile(r"####\s*(-?[\d.,]*\d)"),
    re.compile(r"[Tt]he answer is\s*\(?([A-E])\b\)?"),
    re.compile(r"\\boxed\{([^{}]*)\}"),
)


def extract_answer(text: str) -> str | None:
    """The marked answer that comes last in `text`, without commas; None where no marker is."""
    found = [match for marker in MARKERS for match in marker.finditer(text)]
    if not found:
        return None
    return max(found, key=lambda match: match.end()).group(1).replace(",", "").strip()


def is_correct(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer is the gold one; numbers are compared by value."""
    if answer is None:
        return False
    try:
        return float(answer) == float(gold.replace(",", ""))
    except ValueError:
        return answer == gold


def answer_start(text: str) -> int:
    """The character where the answer line of `text` begins; `len(text)` where no line is marked."""
    found = [match.start() for marker in MARKERS for match in marker.finditer(text)]
    return text.rfind("\n", 0, max(found)) + 1 if found else len(text)
