r"""Option letters, A to E: `(b)`, `B.`, `option B`, `[B]`, `B) 25`, `\textbf{(B)}\ 25`.

A letter with text after it is one only where a bracket or a mark follows it: `A dog`, `A or B` and `A/B` are none.
"""

from __future__ import annotations

import re

from dpc_interp.mathematics.notation import plain, without_text_commands

LETTER = re.compile(
    r"""[(\[]?(?:the\s+)?(?:(?:correct|right|best)\s+)?
    (?:(?i:(?P<name>option|choice|letter|alternative|answer))(?:\s*:|\s+is\b)?\s*)?
    (?P<open>[(\[]?)\s*(?P<letter>[A-Ea-e])\s*(?P<close>[)\]]?)
    (?P<text>$|\s*[.:,;–—].*|\s+-\s.*|\s*\(.*|(?<=[)\]])\s*\S.*|\s+is\s+(?:the\s+)?(?:correct|right).*)""",
    re.VERBOSE | re.DOTALL,
)
SECOND_LETTER = re.compile(
    r"\W*(?:(?:or|and|und|nor)\b)?\W*(?:option\s*)?\W*[A-E]\b(?!')(?:\W*$|\W*(?:or|and)\b|\W+[A-E]\b)"
)
OTHER_OPTION = (
    r"(?<![\w(])(?<!\bnot\s)(?<!\bthan\s)"
    r"(?:[(\[](?!{letter})[{letters}][)\]]|{following}(?:[).:]|\s+[-–—]\s))(?=\s*[^\s,.;])"
)
"""The mark of another option, in a list of options: `(A) 3 (B) 4`, `A. 3, B. 4`. Without a bracket only the letter that
follows counts, for `A. 25 C.` is no list."""
GOLD_LETTER_TEXT = re.compile(r"[.:]?(?:\s(?!- ).*)?", re.DOTALL)


def split_letter(text: str) -> tuple[str, str] | None:
    r"""Split an answer into its option letter and the text after it.

    Args:
        text: an answer.

    Returns:
        A letter from A to E, in upper case, and the rest with the mark that separates it: `("B", ". 25 km")`. None if
        the text names no letter, or several (`A or B`, `(A) 3 (B) 4`).
    """
    match = LETTER.fullmatch(without_text_commands(plain(text)))
    if match is None or SECOND_LETTER.match(match["text"]):
        return None
    letter = match["letter"]
    letters = "A-E" if letter.isupper() else "a-e"
    if re.search(OTHER_OPTION.format(letter=letter, letters=letters, following=chr(ord(letter) + 1)), match["text"]):
        return None
    is_marked = match["name"] or match["open"] or match["close"] or not match["text"].strip(" .:")
    return (letter.upper(), match["text"]) if letter.isupper() or is_marked else None


def read_letter(text: str) -> str | None:
    r"""Read an option letter: `(b)`, `B.`, `option B`, `[B]`, `B) 25`, `\textbf{(B)}\ 25`.

    Args:
        text: an answer.

    Returns:
        A letter from A to E, in upper case; None if the text names no letter, or several (`A or B`).
    """
    split = split_letter(text)
    return None if split is None else split[0]


def read_gold_letter(gold: str) -> str | None:
    """Read the letter of a gold answer, whose text may follow only after a bracket, a period or a colon.

    Args:
        gold: a gold answer.

    Returns:
        A letter from A to E, in upper case; None for other answers, such as the expression `A - 3`.
    """
    split = split_letter(gold)
    return split[0] if split and GOLD_LETTER_TEXT.fullmatch(split[1]) else None
