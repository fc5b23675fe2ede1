r"""When two answers are equal: option letters, quantities, words, and everything else as LaTeX by `math-verify`.

Quantities are compared exactly (see `quantities.py`), letters and words as they are written; expressions, lists,
tuples, intervals and relations symbolically. `(1, 2)` is read as a pair where both
sides may be one, as an interval where one of them can only be an interval.
"""

from __future__ import annotations

import re
import threading

from dpc_interp.tasks.quantities import read_quantity, same_quantity

LETTER = re.compile(r"\(?([A-E])(?:[).:](?:\s.*)?)?", re.DOTALL)
WORDS = re.compile(r"[^\W\d_]{3,}.*|.*\s[^\W\d_]{3,}", re.DOTALL)
PAIR = re.compile(r"\((.*)\)")
SECONDS = 3
"""Given to one parse or comparison in the main thread. Signals end it there; another thread cannot be ended."""
LONGEST = 200
"""Characters. What is longer is not an answer that could be compared symbolically in reasonable time."""


def equal(answer: str, gold: str) -> bool:
    """Whether `answer` equals `gold`. Neither raises: what cannot be read is equal only to itself."""
    answer, gold = _trimmed(answer), _trimmed(gold)
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    if letter := LETTER.fullmatch(_text(gold)):
        given = LETTER.fullmatch(_text(answer))
        return given is not None and given[1] == letter[1]
    mine, right = read_quantity(answer), read_quantity(gold)
    if mine is not None and right is not None:
        return same_quantity(mine, right)
    if _is_words(answer) or _is_words(gold):  # `math-verify` would read letters as a product
        return _folded(answer) == _folded(gold)
    if max(len(answer), len(gold)) > LONGEST:
        return False
    entries, right_entries = _entries(answer), _entries(gold)
    if entries and right_entries:  # two empty intervals would be equal, whatever their ends
        return len(entries) == len(right_entries) and all(map(equal, entries, right_entries))
    return _same_mathematics(answer, gold)


def _same_mathematics(answer: str, gold: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify  # slow to import, and seldom needed

    # Its timeouts are signals, which only the main thread can take.
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    if seconds is None and re.search(r"\^.*\^|!|\d{7}", answer + gold):
        return False  # towers and factorials could run for ever, and no signal would end them
    read = [
        parse(
            f"${_latex(text)}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=seconds,
        )
        for text in (gold, answer)
    ]
    return all(read) and bool(verify(*read, allow_set_relation_comp=True, timeout_seconds=seconds))


def _trimmed(text: str) -> str:
    r"""Without dollar signs around it, spacing commands and a closing period."""
    text = text.strip()
    if match := re.fullmatch(r"\$([^$]+)\$\.?|\\\((.+)\\\)\.?|\\\[(.+)\\\]\.?", text, re.DOTALL):
        text = next(group for group in match.groups() if group is not None).strip()
    text = re.sub(r"\\left(?=[\[({|.\\])|\\right(?=[\])}|.\\])", "", text)
    return text.removesuffix(".").strip()


def _text(text: str) -> str:
    """The words inside text commands."""
    return re.sub(r"\\(?:text|textbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r"\1", text).strip()


def _is_words(text: str) -> bool:
    plain = _text(text)
    return not re.search(r"[\\=<>^_+*/(){}\[\]]|\d", plain) and WORDS.fullmatch(plain) is not None and plain != "pi"


def _folded(text: str) -> str:
    return " ".join(_text(text).casefold().split())


def _entries(text: str) -> list[str] | None:
    """The entries of a tuple in round brackets; None where it holds none, or an infinite end."""
    match = PAIR.fullmatch(text)
    if match is None or re.search(r"infty|\binf|\boo\b|∞", text):
        return None
    entries, depth = [""], 0
    for sign in match[1]:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None  # `(1) + (2)`
        if sign == "," and depth == 0:
            entries.append("")
        else:
            entries[-1] += sign
    return entries if len(entries) > 1 else None


def _latex(text: str) -> str:
    """The plain signs that people write, in LaTeX."""
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<!\\)(?<![A-Za-z])pi\b|π", r"\\pi ", text)
    text = re.sub(r"(?<!\\)\b(?:infinity|inf|oo)\b|∞", r"\\infty ", text)
    text = re.sub(r"<=|≤", r"\\le ", text)
    text = re.sub(r">=|≥", r"\\ge ", text)
    text = text.replace("∪", "\\cup ").replace("−", "-").replace("×", "\\times ")
    return re.sub(r"\s+U\s+", r" \\cup ", text)
