r"""The answer of a text: which of its statements counts, and where it begins.

`statements.py` finds the statements of an answer. What follows a `####` answer is never part of it, so the first one
counts; of the other markers, the last one before a question of the model's own. In a solution of a data file the last
marker of any kind counts. What the answer means is read by `equal` in `equivalence.py` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.mathematics.notation import sentence_end
from dpc_interp.tasks.equivalence import equal
from dpc_interp.tasks.statements import MAX_LINE, Statement, find_statements, follow_on_start

Extraction = str | Callable[[str], str | None]
"""A name of `MODES`, or a function from a text to its answer, None if it has none."""
MODES = ("marked", "strict", "flexible")
STOP_STRINGS = (
    "\nQuestion:", "\nQ:", "\nProblem:", "\nExercise:", "\nHuman:", "\nUser:", "\n### Instruction", "\n### Question",
)  # fmt: skip
"""Beginnings of a question of the model's own, for a generation that ends with an answer; see `follow_on_start`."""

# gsm8k.yaml of lm-evaluation-harness: `strict-match` takes the first match, `flexible-extract` the last one.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")

MAX_LEAD_WORDS = 4
"""Words before a marker, at most, that belong to the answer's sentence where nothing else is left as the rationale."""


def extract_answer(text: str, mode: Extraction = "marked") -> str | None:
    """Extract the answer of a text that a model wrote.

    Args:
        text: the text of a transcript.
        mode: `marked`: the answer after a marker, the first `####` or else the last marker before a question of the
            model's own. `strict` and `flexible`: the two GSM8K filters of lm-evaluation-harness, the first number after
            `#### ` and the last number anywhere. A function: what it returns for the text.

    Returns:
        The bare answer, numbers without commas and currency signs; None if the text has no answer.

    Raises:
        UnknownNameError: an unknown mode.
        DPCInterpError: a function returned something that is neither a text nor None.

    Example:
        >>> from dpc_interp.tasks.answers import extract_answer
        >>> extract_answer("Half of 144 is 72. The answer is **72**.")
        '72'
        >>> extract_answer("So it is 5/6.", lambda text: text.split()[-1])
        '5/6.'
    """
    check_extraction(mode)
    if callable(mode):
        answer = mode(text)
        if answer is not None and not isinstance(answer, str):
            raise DPCInterpError(
                f"the extraction returned {type(answer).__name__}; return a str, or None for no answer"
            )
        return answer or None
    if mode == "marked":
        stated = _stated(text)
        return stated[-1].answer if stated else None
    numbers = (STRICT if mode == "strict" else FLEXIBLE).findall(text)
    if not numbers:
        return None
    return re.sub(r"[,$]|\.$", "", numbers[0 if mode == "strict" else -1]) or None


def check_extraction(extraction: Extraction) -> None:
    """Raise `UnknownNameError` unless an extraction is a function or a name of `MODES`.

    Args:
        extraction: see `extract_answer`.
    """
    if not callable(extraction) and extraction not in MODES:
        raise UnknownNameError("extraction", str(extraction), MODES)


def extract_gold(text: str) -> str | None:
    """Extract the answer of a written solution, where the last marker counts, `####` or not.

    Args:
        text: a solution of a data file.

    Returns:
        The bare answer; None if the text has no answer.
    """
    stated = find_statements(text)
    return stated[-1].answer if stated else None


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
    """Find where the answer is stated, which ends the rationale.

    Args:
        text: a rationale or the text of a transcript.

    Returns:
        Index of the first character of the sentence that states the answer; of its marker, if the sentence also holds a
        part of the rationale (`7 * 2 = 14 #### 14`). Statements of the same answer right before it are included.
        `len(text)` if no answer has a marker.
    """
    stated = _stated(text)
    if not stated:
        return len(text)
    start = _statement_start(text, stated[-1].marker)
    for earlier, later in zip(stated[-2::-1], stated[:0:-1], strict=True):
        if earlier.answer != later.answer or text[earlier.end : start].strip(" \n\t$.*_"):
            break
        start = _statement_start(text, earlier.marker)
    return start


def _stated(text: str) -> list[Statement]:
    """The statements up to the one that counts, which is the last one of the list."""
    statements = find_statements(text[: follow_on_start(text)])
    first_hashes = next((k for k, statement in enumerate(statements) if statement.kind == "hashes"), len(statements))
    return statements[: first_hashes + 1]


def _statement_start(text: str, marker: int) -> int:
    sentence = max(text.rfind("\n", 0, marker) + 1, marker - MAX_LINE)
    while (length := sentence_end(text[sentence:marker])) < marker - sentence:
        sentence += length + len(re.match(r"\S+\s*", text[sentence + length :])[0])  # type: ignore[index]
    lead = text[sentence:marker]
    is_all = len(lead) == MAX_LINE or not text[:sentence].strip()
    if re.search(r"\d", lead) or (is_all and len(lead.split()) > MAX_LEAD_WORDS):
        return marker - len(lead) + len(re.sub(r"(?:[$*_]|\\[(\[])+$", "", lead))
    return sentence
