r"""Rationale steps out of written solutions, the line that states a gold answer, and what is no gold answer.

The answer of a solution is the last one that it states, with any marker (`extract_gold` in `answers.py`).
"""

from __future__ import annotations

import re

from dpc_interp.errors import DPCInterpError
from dpc_interp.mathematics.boxes import without_boxes
from dpc_interp.tasks.answers import extract_gold
from dpc_interp.tasks.statements import find_statements

MAX_GOLD_LENGTH = 200
"""Characters. A longer text without a marker is a solution, not an answer."""
MAX_GOLD_WORDS = 5
"""Words of a text of two sentences that may still be an answer, such as `Approx. Two`."""

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
TWO_SENTENCES = re.compile(r"(?:[a-z]{3}|[\d%)$}])[.!?]\s+[A-Z]")
CALCULATOR_ANNOTATION = re.compile(r"<<[^<>]*>>")
UNREAD_MARKER = re.compile(r"####|\\(?:boxed|fbox|framebox)\b")


def body_of(text: str) -> str:
    r"""Cut the answer off a solution.

    Args:
        text: a solution.

    Returns:
        The text before its answer line. `\boxed{...}` within a sentence only loses its command. Calculator annotations
        (`<<48/2=24>>`) and the marks of headings (`#### Step 1`) are removed.
    """
    text = CALCULATOR_ANNOTATION.sub("", text)
    statements = find_statements(text)
    hashes = [statement for statement in statements if statement.kind == "hashes"]
    if hashes:
        text = text[: hashes[-1].marker]
    elif statements and statements[-1].kind == "sentence":
        text = text[: statements[-1].marker].rstrip(" *,;")
    return re.sub(r"(?m)^#{2,}[ \t]*", "", without_boxes(text)).strip()


def is_solution(text: str) -> bool:
    r"""Whether a gold text has more than its answer.

    Args:
        text: a gold text.

    Returns:
        False for `#### 17`, `$\boxed{17}$`, `The answer is 17.` and texts without a marker.
    """
    gold = extract_gold(text)
    return gold is not None and body_of(text).replace(",", "").strip("$ .{}*") not in ("", gold.strip("$ .{}*"))


def split_steps(text: str) -> list[str]:
    """Split a rationale into steps, as `step_ends` in `generation/steps.py` splits the text of a transcript.

    Args:
        text: a rationale without its answer line.

    Returns:
        The lines that are not blank, stripped; the sentences if the text has only one line.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return SENTENCE_END.split(lines[0]) if len(lines) == 1 else lines


def answer_line(answer: str) -> str:
    r"""Write an answer with the marker of its kind, so that `extract_answer` finds it.

    Args:
        answer: the bare answer.

    Returns:
        `The answer is B` for an option letter, `#### 17` for a number, else `\boxed{...}`.
    """
    if re.fullmatch("[A-E]", answer):
        return f"The answer is {answer}"
    return f"#### {answer}" if re.fullmatch(r"-?\d[\d,]*(\.\d+)?", answer) else f"\\boxed{{{answer}}}"


def check_gold(answer: str, place: str) -> str:
    """Check that a gold is an answer and not a whole solution.

    Args:
        answer: a gold without a marker.
        place: the row, for the error message.

    Returns:
        The gold; line breaks of a LaTeX environment become spaces.

    Raises:
        DPCInterpError: it has several lines or sentences, or is too long.
    """
    if "\\begin{" in answer:
        answer = " ".join(answer.split())
    n_lines, n_words = len(answer.splitlines()), len(answer.split())
    kind = f"{n_lines} lines" if n_lines > 1 else ""
    if UNREAD_MARKER.search(answer):
        raise DPCInterpError(f"{place} has an answer with a marker but nothing to read in it; write the bare answer")
    if not kind and len(answer) > MAX_GOLD_LENGTH:
        kind = f"{len(answer)} characters"
    if not kind and n_words > MAX_GOLD_WORDS and TWO_SENTENCES.search(answer):
        kind = "several sentences"
    if kind:
        raise DPCInterpError(
            f"{place} has an answer of {kind} without a marker; write the bare answer into answer and the solution "
            "into rationale, or end the solution with a line #### 17"
        )
    return answer
