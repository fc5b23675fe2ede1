r"""Gold answers and rationale steps out of written solutions.

A solution states its answer with a marker: `#### 17`, `\boxed{17}` or `The answer is 17`. The last marker counts. What
follows `####` counts to the end of its line, so `####17`, a tab and `#### 5/6` are read, and a solution may be one line
long. `#### 17` followed by a line `The answer is: 17` is one answer.
"""

from __future__ import annotations

import re

from dpc_interp.errors import DPCInterpError

MAX_GOLD_LENGTH = 200
"""Characters. A longer text without a marker is a solution, not an answer."""
MAX_GOLD_WORDS = 5
"""Words of a text of two sentences that may still be an answer, such as `Approx. Two`."""

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
HASHES = re.compile(r"(?<!#)####(?!#)\s*([^\s#][^\n]*)")
PHRASE = re.compile(
    r"(?i)(?:\b(?:so|thus|hence|therefore)\b,?\s*)?(?:\b(?:the|my)\s+)?(?:\b(?:final|correct)\s+)?"
    r"\banswer(?:\s+is\b\s*:?|\s*:)\s*([^\n]*[^\s.*][^\n]*)"
)
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?=\s*\{)")
BOX_WITHOUT_BRACES = re.compile(
    r"\\(?:boxed|fbox|framebox)(?:\s+([^\s$.{}\\])|\s*(\d|\\[dt]?frac\s*(?:\{[^{}]*\}\s*\{[^{}]*\}|\d\d)|\\sqrt\s*\{[^{}]*\}))"
)
"""`\\boxed 3`, `\\boxed3`, `\\boxed\\frac{1}{2}`."""
TWO_SENTENCES = re.compile(r"(?:[a-z]{3}|[\d%)$}])[.!?]\s+[A-Z]")
CALCULATOR_ANNOTATION = re.compile(r"<<[^<>]*>>")
UNREAD_MARKER = re.compile(r"####|\\(?:boxed|fbox|framebox)\b")
NUMBER = re.compile(r"-?\$?\d[\d,]*(\.\d+)?")


def gold_of(text: str) -> str | None:
    r"""Read the answer that a solution states.

    Args:
        text: a solution, or a gold answer with a marker.

    Returns:
        The answer of the last marker, without the marker; a number has neither commas nor a dollar sign. None if the
        text has no marker.
    """
    hashes = list(HASHES.finditer(text))
    if not hashes:
        return _boxed_or_phrase(text)
    line = hashes[-1][1]
    in_line = _boxed_or_phrase(line) if PHRASE.match(line) or BOX.search(_with_braces(line)) else None
    return _boxed_or_phrase(text[hashes[-1].end() :]) or in_line or _bare(line)


def body_of(text: str) -> str:
    r"""Cut the answer off a solution.

    Args:
        text: a solution.

    Returns:
        The text before its answer line. `\boxed{...}` within a sentence only loses its command. Calculator annotations
        (`<<48/2=24>>`) and the marks of headings (`#### Step 1`) are removed.
    """
    text = _with_braces(CALCULATOR_ANNOTATION.sub("", text))
    if hashes := list(HASHES.finditer(text)):
        text = text[: hashes[-1].start()]
    elif (phrase := _last_phrase(text)) and not BOX.search(phrase[0]):
        text = text[: phrase.start()].rstrip(" *,;")
    return re.sub(r"(?m)^#{2,}[ \t]*", "", BOX.sub("", text)).strip()


def is_solution(text: str) -> bool:
    r"""Whether a gold text has more than its answer.

    Args:
        text: a gold text.

    Returns:
        False for `#### 17`, `$\boxed{17}$`, `The answer is 17.` and texts without a marker.
    """
    gold = gold_of(text)
    return gold is not None and body_of(text).replace(",", "").strip("$ .{}*") not in ("", gold.strip("$ .{}*"))


def split_steps(text: str) -> list[str]:
    """Split a rationale into steps, as `step_ends` in `analysis/segments.py` splits the text of a transcript.

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


def _with_braces(text: str) -> str:
    r"""Write `\boxed 3`, as a few solutions of MATH have it, with braces."""
    return BOX_WITHOUT_BRACES.sub(lambda match: f"\\boxed{{{match[1] or match[2]}}}", text)


def _boxed_or_phrase(text: str) -> str | None:
    """The answer of the last box or phrase."""
    text = _with_braces(text)
    phrase = _last_phrase(text)
    if phrase and not BOX.search(phrase[0]):
        return _bare(SENTENCE_END.split(phrase[1])[0])
    boxes = list(BOX.finditer(text))
    return _box_content(text[boxes[-1].end() :].lstrip()) if boxes else None


def _box_content(text: str) -> str | None:
    r"""What is between the first brace and the one that closes it; None if none does or nothing is between."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return _bare(text[1 : match.start()]) or None
    return None


def _last_phrase(text: str) -> re.Match[str] | None:
    r"""The last phrase that states the answer; one in the middle of a sentence does not count after a `\boxed{...}`."""
    boxes, phrases = list(BOX.finditer(text)), list(PHRASE.finditer(text))
    last_box = boxes[-1].start() if boxes else -1
    if not phrases or phrases[-1].end() < last_box:
        return None
    is_sentence = re.search(r"(?:^|\n|[.!?$]\s+)\W*$", text[: phrases[-1].start()])
    return phrases[-1] if not boxes or is_sentence else None


def _bare(answer: str) -> str:
    """An answer without emphasis and a final period; a number without commas and a dollar sign."""
    answer = answer.strip().strip("*").strip().removesuffix(".").strip().strip("*")
    return re.sub("[,$]", "", answer) if NUMBER.fullmatch(answer) else answer
