r"""Option letters, A to E: `(b)`, `B.`, `option B`, `[B]`, `B) 25`, `\textbf{(B)}\ 25`.

A letter with text behind it is one only where a bracket or a mark follows it: `A dog`, `A or B` and `A/B` are none.
"""

from __future__ import annotations

import re

from dpc_interp.mathematics.notation import plain, without_text_commands

LETTER = re.compile(
    r"""[(\[]?(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:(?i:(?P<name>option|choice|letter|alternative|answer))\s*:?\s*)?
    (?P<open>[(\[]?)\s*(?P<letter>[A-Ea-e])\s*(?P<close>[)\]]?)
    (?P<text>$|\s*[.:,;–—].*|\s+-\s.*|\s*\(.*|(?<=[)\]])\s*\S.*|\s+is\s+(?:the\s+)?(?:correct|right).*)""",
    re.VERBOSE | re.DOTALL,
)
SECOND_LETTER = re.compile(r"\W*(?:(?:or|and|und|nor)\b)?\W*(?:option\s*)?\W*[A-E]\b(?!')(?:\W*$|\W*(?:or|and)\b)")
GOLD_LETTER_TEXT = re.compile(r"\s*$|[).:]?(?:\s.*)?$", re.DOTALL)
FILLER = r"(?:correct|right|final|best|the|is|are|will|must|be|would|letter|so|thus|hence|therefore|this|us|gives|it)"
NAMED_LETTER = re.compile(
    rf"(?i:(?:(?<!\w)|^)(?:{FILLER}\b\W*)*\b(?:answers?|ans|options?|choices?)\b\W*"
    rf"(?:(?:{FILLER}|options?|choices?)\b\W*)*)\b[A-E]\b(?i:\W+{FILLER}\b)*(?:[).:\s]+[^a-z\n]*(?:\w+)?)?\W*$"
)
BARE_LETTER = re.compile(
    rf"(?i:(?:(?<!\w)|^)(?:{FILLER}\b\W*)*)(?<![-+*/^\w])[(\[]?\b(?P<letter>[A-E])\b(?i:\W+(?:answer|{FILLER})\b)*\W*$"
)
"""The end of a rationale step that names a letter: with a word such as `answer` or `option`, and without one."""


def read_letter(text: str) -> str | None:
    r"""Read an option letter: `(b)`, `B.`, `option B`, `[B]`, `B) 25`, `\textbf{(B)}\ 25`.

    Args:
        text: an answer.

    Returns:
        A letter from A to E, in upper case; None if the text names no letter, or several (`A or B`).
    """
    match = LETTER.fullmatch(without_text_commands(plain(text)))
    if match is None or SECOND_LETTER.match(match["text"]):
        return None
    is_marked = match["name"] or match["open"] or match["close"] or not match["text"].strip(" .:")
    return match["letter"].upper() if match["letter"].isupper() or is_marked else None


def read_gold_letter(gold: str) -> str | None:
    """Read the letter of a gold answer, whose text may follow only after a bracket, a period or a colon.

    Args:
        gold: a gold answer.

    Returns:
        A letter from A to E, in upper case; None for other answers, such as the expression `A - 3`.
    """
    letter = read_letter(gold)
    rest = re.sub(r"^\W*[A-Ea-e]", "", without_text_commands(gold), count=1)
    return letter if letter and GOLD_LETTER_TEXT.match(rest.lstrip("]")) and " - " not in rest else None


def without_letter(steps: list[str], letter: str) -> list[str]:
    """Remove from rationale steps what only names the option letter, as in `It is 100 m. Answer C`.

    Args:
        steps: rationale steps.
        letter: the letter of the correct option.

    Returns:
        The steps that are left. A letter without a word such as `answer` or `option` is removed from the last one only.
    """
    kept: list[str] = []
    for step in reversed(steps):
        match = NAMED_LETTER.search(step) or (BARE_LETTER.fullmatch if kept else BARE_LETTER.search)(step)
        if match and match.groupdict().get("letter", letter) == letter:
            step = re.sub(r"[\s,;:(=>–-]+$", "", step[: match.start()])
        if step:
            kept.append(step)
    return kept[::-1]
