r"""Whether two answers are equal: as option letters, quantities, words or, for all other answers, as mathematics.

Quantities are compared exactly (see `quantities.py`), letters and words as text. `math-verify` compares expressions,
lists, tuples, intervals and relations symbolically. `(1, 2)` is compared as a tuple, entry by entry, if both answers
may be tuples; as an interval if one of them can only be an interval.
"""

from __future__ import annotations

import re
import threading

from dpc_interp.tasks.quantities import read_quantity, same_quantity

LETTER = re.compile(r"\(?([A-E])(?:[).:](?:\s.*)?)?", re.DOTALL)
WORDS = re.compile(r"[^\W\d_]{3,}.*|.*\s[^\W\d_]{3,}", re.DOTALL)
PARENTHESES = re.compile(r"\((.*)\)")
TIMEOUT_SECONDS = 3
"""Time limit for one symbolic parse or comparison. It works by a signal, so in the main thread only."""
MAX_SYMBOLIC_LENGTH = 200
"""Number of characters. Longer answers cannot be compared symbolically in reasonable time."""


def equal(answer: str, gold: str) -> bool:
    """Compare two answers. Never raises: an answer that cannot be parsed is equal only to the same text.

    Args:
        answer: an extracted answer.
        gold: the gold answer. If it is an option letter, so must be `answer`.

    Returns:
        True if they are equal. An empty answer is equal to nothing.
    """
    answer, gold = _strip_delimiters(answer), _strip_delimiters(gold)
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    if gold_letter := LETTER.fullmatch(_unwrap_text(gold)):
        letter = LETTER.fullmatch(_unwrap_text(answer))
        return letter is not None and letter[1] == gold_letter[1]
    quantity, gold_quantity = read_quantity(answer), read_quantity(gold)
    if quantity is not None and gold_quantity is not None:
        return same_quantity(quantity, gold_quantity)
    if _is_words(answer) or _is_words(gold):  # `math-verify` would read a word as a product of its letters
        return _normalize_words(answer) == _normalize_words(gold)
    if max(len(answer), len(gold)) > MAX_SYMBOLIC_LENGTH:
        return False
    entries, gold_entries = _tuple_entries(answer), _tuple_entries(gold)
    # Entry by entry: `math-verify` reads `(3, -1)` as an open interval, and all empty intervals are equal.
    if entries and gold_entries:
        return len(entries) == len(gold_entries) and all(map(equal, entries, gold_entries))
    return _equal_symbolically(answer, gold)


def _equal_symbolically(answer: str, gold: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify  # slow to import and rarely needed

    # math-verify sets its time limits by signals, which only the main thread can receive.
    seconds = TIMEOUT_SECONDS if threading.current_thread() is threading.main_thread() else None
    if seconds is None and re.search(r"\^.*\^|!|\d{7}", answer + gold):
        return False  # towers of powers, factorials and long numbers could run forever without a time limit
    parsed = [
        parse(
            f"${_to_latex(text)}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=seconds,
        )
        for text in (gold, answer)
    ]
    return all(parsed) and bool(verify(*parsed, allow_set_relation_comp=True, timeout_seconds=seconds))


def _strip_delimiters(text: str) -> str:
    r"""Remove math delimiters around the text (`$...$`, `\(...\)`), `\left`, `\right` and a final period."""
    text = text.strip()
    if match := re.fullmatch(r"\$([^$]+)\$\.?|\\\((.+)\\\)\.?|\\\[(.+)\\\]\.?", text, re.DOTALL):
        text = next(group for group in match.groups() if group is not None).strip()
    text = re.sub(r"\\left(?=[\[({|.\\])|\\right(?=[\])}|.\\])", "", text)
    return text.removesuffix(".").strip()


def _unwrap_text(text: str) -> str:
    r"""Replace text commands, such as `\text{east}`, by their content."""
    return re.sub(r"\\(?:text|textbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r"\1", text).strip()


def _is_words(text: str) -> bool:
    """Whether the text is words without any mathematics."""
    plain = _unwrap_text(text)
    return not re.search(r"[\\=<>^_+*/(){}\[\]]|\d", plain) and WORDS.fullmatch(plain) is not None and plain != "pi"


def _normalize_words(text: str) -> str:
    return " ".join(_unwrap_text(text).casefold().split())


def _tuple_entries(text: str) -> list[str] | None:
    """The entries of a tuple in parentheses; None if the text is not a tuple, or has an end of an infinite interval."""
    match = PARENTHESES.fullmatch(text)
    if match is None or re.search(r"infty|\binf|\boo\b|∞", text):
        return None
    entries, depth = [""], 0
    for character in match[1]:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None  # the outer parentheses do not match each other, as in `(1) + (2)`
        if character == "," and depth == 0:
            entries.append("")
        else:
            entries[-1] += character
    return entries if len(entries) > 1 else None


def _to_latex(text: str) -> str:
    """Translate plain symbols, such as `sqrt(2)`, `pi` and `<=`, to LaTeX."""
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<!\\)(?<![A-Za-z])pi\b|π", r"\\pi ", text)
    text = re.sub(r"(?<!\\)\b(?:infinity|inf|oo)\b|∞", r"\\infty ", text)
    text = re.sub(r"<=|≤", r"\\le ", text)
    text = re.sub(r">=|≥", r"\\ge ", text)
    text = text.replace("∪", "\\cup ").replace("−", "-").replace("×", "\\times ")
    return re.sub(r"\s+U\s+", r" \\cup ", text)
