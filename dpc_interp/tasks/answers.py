r"""What counts as the answer of a text: the marker of its task, read from the last marked line.

`#### 17` (story, rule, GSM8K), `The answer is B` (choice, AQuA), `\boxed{7}` (algebra, MATH; braces may nest).
Whether two answers are equal is decided in `equivalence.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.equivalence import equal

MARKERS = (
    re.compile(r"####\s*(-?\$?[\d.,]*\d)"),
    re.compile(r"[Tt]he answer is\s*\(?([A-E])\b\)?"),
)
BOX = re.compile(r"\\boxed\s*\{")
THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")

# lm-evaluation-harness, gsm8k.yaml: `strict-match` takes the first match, `flexible-extract` the last.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
MODES = ("marked", "strict", "flexible")


def extract_answer(text: str, mode: str = "marked") -> str | None:
    """The answer that `text` gives, or None.

    Args:
        text: what was written.
        mode: `marked`: the marked answer that comes last. `strict` and `flexible`: GSM8K's two filters in
            lm-evaluation-harness, the first number behind `#### ` and the last number anywhere. All give numbers
            without commas.

    Raises:
        UnknownNameError: no such mode.
    """
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    if mode == "marked":
        found = list(_marked(text))
        return max(found)[2] if found else None
    numbers = (STRICT if mode == "strict" else FLEXIBLE).findall(text)
    if not numbers:
        return None
    return re.sub(r"[,$]|\.$", "", numbers[0 if mode == "strict" else -1]) or None


def is_correct(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold one: as letters, quantities, words or LaTeX (see `equal`)."""
    return answer is not None and equal(answer, gold)


def answer_start(text: str) -> int:
    """The character where the answer line of `text` begins; `len(text)` where no line is marked."""
    found = [start for _, start, _ in _marked(text)]
    return text.rfind("\n", 0, max(found)) + 1 if found else len(text)


def _marked(text: str) -> Iterator[tuple[int, int, str]]:
    """End, start and answer of every marker in `text`."""
    for marker in MARKERS:
        for match in marker.finditer(text):
            yield match.end(), match.start(), re.sub("[,$]", "", match[1])
    for match in BOX.finditer(text):
        stop = _closing_brace(text, match.end())
        if stop is not None:
            inside = text[match.end() : stop].strip()
            yield stop + 1, match.start(), inside.replace(",", "") if THOUSANDS.fullmatch(inside) else inside


def _closing_brace(text: str, start: int) -> int | None:
    r"""Where the brace opened before `start` closes; `\{` and `\}` are signs, not braces."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start:], flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return start + match.start()
    return None
