r"""Extract the answer of a text: the last answer that carries the marker of a task.

The markers are `#### 17` (story, rule, GSM8K), `The answer is B` (choice, AQuA) and `\boxed{7}` (algebra, MATH; braces
may be nested). `equivalence.py` decides whether two answers are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.equivalence import equal

MARKERS = (
    re.compile(r"####\s*(-?\$?[\d.,]*\d)"),
    re.compile(r"[Tt]he answer is\s*\(?([A-E])\b\)?"),
)
BOX = re.compile(r"\\boxed\s*\{")
NUMBER_WITH_COMMAS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")

# gsm8k.yaml of lm-evaluation-harness: `strict-match` takes the first match, `flexible-extract` the last one.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
Extraction = str | Callable[[str], str | None]
"""A name of `MODES`, or a function from a text to the bare answer."""
MODES = ("marked", "strict", "flexible")


class MarkedAnswer(NamedTuple):
    """An answer and its place in a text; sorts by the end of the marker.

    Attributes:
        end: index of the character after the marker and the answer.
        start: index of the first character of the marker.
        answer: the bare answer.
    """

    end: int
    start: int
    answer: str


def extract_answer(text: str, mode: Extraction = "marked") -> str | None:
    """Extract the answer of a text.

    Args:
        text: a rationale or the text of a transcript.
        mode: `marked`: the last answer with a marker. `strict` and `flexible`: the two GSM8K filters of
            lm-evaluation-harness, the first number after `#### ` and the last number anywhere.

    Returns:
        The bare answer, numbers without commas and dollar signs; None if the text has no answer.

    Raises:
        UnknownNameError: an unknown mode.
    """
    check_extraction(mode)
    if callable(mode):
        return mode(text)
    if mode == "marked":
        last = _last_marked(text)
        return None if last is None else last.answer
    numbers = (STRICT if mode == "strict" else FLEXIBLE).findall(text)
    if not numbers:
        return None
    return re.sub(r"[,$]|\.$", "", numbers[0 if mode == "strict" else -1]) or None


def check_extraction(extraction: Extraction) -> None:
    """Raise `UnknownNameError` unless an extraction is a function or a name of `MODES`."""
    if not callable(extraction) and extraction not in MODES:
        raise UnknownNameError("extraction", str(extraction), MODES)


def is_correct(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold answer, as `equal` in `equivalence.py` compares them.

    Args:
        answer: an extracted answer; None if the text has none, which is never correct.
        gold: the gold answer.

    Returns:
        True if they are equal.
    """
    return answer is not None and equal(answer, gold)


def answer_start(text: str) -> int:
    """Find the line that states the answer.

    Args:
        text: a rationale or the text of a transcript.

    Returns:
        Index of the first character of the line with the last marker; `len(text)` if no answer has a marker.
    """
    last = _last_marked(text)
    return len(text) if last is None else text.rfind("\n", 0, last.start) + 1


def _last_marked(text: str) -> MarkedAnswer | None:
    return max(_marked_answers(text), default=None)


def _marked_answers(text: str) -> Iterator[MarkedAnswer]:
    """Every answer with a marker, of any task."""
    for marker in MARKERS:
        for match in marker.finditer(text):
            yield MarkedAnswer(match.end(), match.start(), re.sub("[,$]", "", match[1]))
    for match in BOX.finditer(text):
        stop = _closing_brace(text, match.end())
        if stop is not None:
            content = text[match.end() : stop].strip()
            # Other commas are not removed: they separate the entries of a list or a tuple.
            answer = content.replace(",", "") if NUMBER_WITH_COMMAS.fullmatch(content) else content
            yield MarkedAnswer(stop + 1, match.start(), answer)


def _closing_brace(text: str, start: int) -> int | None:
    r"""Index of the brace that closes the one before `start`; `\{` and `\}` are symbols, not braces."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start:], flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return start + match.start()
    return None
