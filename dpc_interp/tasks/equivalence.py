r"""Whether two answers are equal: as option letters, numbers, words, lists or, for all others, as mathematics.

`docs/answers.md` has the rules, with an example each. This is the only place that reads what an answer means;
`answers.py` only cuts it out of a text. Numbers with units are compared exactly (`mathematics/quantities.py`), letters
and words as text, the entries of lists, tuples and intervals one by one. Expressions, relations, unions and matrices
are compared by `math-verify`, in a process of its own (`mathematics/symbolic.py`), with the same verdict in every
thread.
"""

from __future__ import annotations

import re

from dpc_interp.mathematics import symbolic
from dpc_interp.mathematics.notation import (
    encloses,
    numeral_value,
    plain,
    split_top_level,
    to_latex,
    without_text_commands,
)
from dpc_interp.mathematics.option_letters import read_gold_letter, read_letter
from dpc_interp.mathematics.quantities import Quantity, read_quantity, same_quantity

WORDS = re.compile(r"[^\W\d_]{3,}.*|.*\s[^\W\d_]{3,}", re.DOTALL)
SHORT_WORDS = {"no", "on", "up", "us", "uk", "eu", "am", "pm", "it", "he", "we", "ok"}
"""Words of two letters, which as products of variables would equal their anagrams."""
ENTRIES = r",(?!\d{3}(?!\d))|,(?=\s)|;|\s+(?:or|and)\s+|\\text\s*\{\s*,?\s*(?:or|and)\s*\}|\\q?quad(?![a-z])"
TIME = re.compile(r"(?i)(\d{1,2}:\d\d)(?:\s*([ap])\.?\s?m\.?)?")
EQUALS = r"(?<![<>!\\])=(?!=)"
MAX_ENTRIES = 50
"""Longer lists are compared as text."""


def equal(answer: str, gold: str) -> bool:
    """Compare two answers. An answer that cannot be parsed is equal only to the same text.

    Args:
        answer: an extracted answer.
        gold: the gold answer. If it is an option letter, so must be `answer`.

    Returns:
        True if they are equal. An empty answer is equal to nothing.

    Raises:
        DPCInterpError: the process that compares expressions cannot be started.
    """
    answer, gold = plain(answer), plain(gold)
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    letter, gold_letter = read_letter(answer), read_gold_letter(gold)
    if gold_letter is not None and (letter is not None or gold_letter in gold):
        return letter == gold_letter
    for compare in (_same_time, _same_numeral, _same_ratio, _same_number, _same_words, _same_last_side, _same_entries):
        verdict = compare(answer, gold)
        if verdict is not None:
            return verdict
    return symbolic.same_expression(to_latex(answer), to_latex(gold))


def _same_time(answer: str, gold: str) -> bool | None:
    """Times of day, one of them with `am` or `pm`; without them `10:30` may be a ratio."""
    a, b = TIME.fullmatch(answer), TIME.fullmatch(gold)
    if a is None or b is None or not (a[2] or b[2]):
        return None
    return a[1] == b[1] and (not a[2] or not b[2] or a[2].lower() == b[2].lower())


def _same_numeral(answer: str, gold: str) -> bool | None:
    """Numerals with a base: the same value, or the same digits where only one of them states its base."""
    a, b = numeral_value(answer), numeral_value(gold)
    if a is None and b is None:
        return None
    if a is not None and b is not None:
        return a[1] is not None and a[1] == b[1]
    (digits, value), other = (a, gold) if a is not None else (b or ("", None), answer)
    quantity = read_quantity(other)
    return quantity is not None and quantity.value in (value, int(digits) if digits.isdigit() else value)


def _same_ratio(answer: str, gold: str) -> bool | None:
    """Ratios of two or more terms: the same proportions; a ratio of two terms equals its fraction."""
    a, b = _read_ratio(answer), _read_ratio(gold)
    if a is None or b is None:
        terms, other = (a, gold) if a is not None else (b, answer)
        quantity = read_quantity(other)
        if terms is None or quantity is None:
            return None
        return len(terms) == 2 and terms[1].value != 0 and quantity.value == terms[0].value / terms[1].value
    if len(a) != len(b) or not all(x.value for x in (*a, *b)):  # `10:00` is a time
        return [x.value for x in a] == [x.value for x in b]
    return len({x.value / y.value for x, y in zip(a, b, strict=True)}) == 1


def _read_ratio(text: str) -> list[Quantity] | None:
    terms = re.split(r"\s*(?::|\\colon(?![a-z]))\s*|(?<=\d)\s+to\s+(?=\d)", text)
    quantities = [quantity for term in terms if (quantity := read_quantity(term)) is not None]
    return quantities if len(terms) > 1 and len(quantities) == len(terms) else None


def _same_number(answer: str, gold: str) -> bool | None:
    """Numbers with or without units; None if one of the answers is not a number."""
    a, b = _read_number(answer), _read_number(gold)
    if a is not None and b is not None:
        return same_quantity(a, b)
    decimal, other = (a, gold) if a is not None else (b, answer)
    if decimal is None or decimal.step is None or not re.search(r"\d|\\|pi|π|^e$", other):
        return None
    value = symbolic.exact_value(to_latex(other))
    return None if value is None else same_quantity(decimal, Quantity(value))


def _read_number(text: str) -> Quantity | None:
    if text[0] + text[-1] in ("()", "[]") and encloses(text):
        text = text[1:-1]
    return read_quantity(text)


def _same_words(answer: str, gold: str) -> bool | None:
    if _is_words(answer) or _is_words(gold):  # `math-verify` would read a word as a product of its letters
        return _normalize_words(answer) == _normalize_words(gold)
    return None


def _is_words(text: str) -> bool:
    """Whether the text is words without any mathematics."""
    words = without_text_commands(text)
    if re.search(r"[\\=<>^_+*/(){}\[\]]|\d", words) or words == "pi":
        return False
    if all(read_quantity(entry) for entry in split_top_level(words, ENTRIES)):  # `five and six`
        return False
    return WORDS.fullmatch(words) is not None or words.casefold() in SHORT_WORDS


def _normalize_words(text: str) -> str:
    return " ".join(without_text_commands(text).casefold().split())


def _same_last_side(answer: str, gold: str) -> bool | None:
    """`9 + 8 = 17` and `x = 17` equal `17`; `x + y = 17` does not, and `x = 17` does not equal `x = 18`."""
    a, b = split_top_level(answer, EQUALS), split_top_level(gold, EQUALS)
    if len(a) == len(b) == 2 and a[0] == b[0] and _is_name(a[0]):
        return equal(a[1], b[1])
    is_list = any(len(split_top_level(text, ENTRIES)) > 1 for text in (answer, gold))
    if is_list or (len(a) == 1) == (len(b) == 1) or "" in (*a, *b):
        return None
    sides, other = (a, gold) if len(a) > 1 else (b, answer)
    if _is_name(sides[-1]):
        sides = sides[::-1]  # `17 = x`
    return all(_is_name(side) or not re.search("[A-Za-z]", side) for side in sides[:-1]) and equal(sides[-1], other)


def _is_name(side: str) -> bool:
    r"""Whether one side of an equation is a name, such as `x`, `f(3)`, `\angle ABC` or `total cost`."""
    name = without_text_commands(side).replace("^{-1}", "")
    return bool(re.search("[A-Za-z]", name)) and not re.search(r"[-+*/^<>]|^\d|\\(?:frac|sqrt|cdot|times|le|ge)", name)


def _same_entries(answer: str, gold: str) -> bool | None:
    r"""Lists and sets in any order, tuples and intervals in order, entry by entry; None if one of them is neither.

    `math-verify` reads `(3, -1)` as an open interval, and all empty intervals are equal.
    """
    (brackets, entries), (gold_brackets, gold_entries) = _read_entries(answer), _read_entries(gold)
    is_list = max(len(entries), len(gold_entries)) > 1
    if {brackets, gold_brackets} <= {"", "()"} and _are_variables(entries) != _are_variables(gold_entries):
        return len(entries) == len(gold_entries) and all(map(equal, entries, gold_entries))
    if {brackets, gold_brackets} <= {"", "{}"} and (is_list or brackets or gold_brackets):
        return _same_set(entries, gold_entries)
    if brackets == gold_brackets and brackets and len(entries) > 1 and len(gold_entries) > 1:
        return len(entries) == len(gold_entries) and all(map(equal, entries, gold_entries))
    return None


def _are_variables(entries: list[str]) -> bool:
    """Whether entries are values of several variables, as in `x=5, y=3`; `x_1=5, x_2=3` are values of one."""
    sides = [split_top_level(entry, EQUALS) for entry in entries]
    return len({re.sub(r"[_{}\d]", "", side[0]) for side in sides if len(side) == 2 and _is_name(side[0])}) > 1


def _read_entries(text: str) -> tuple[str, list[str]]:
    r"""The brackets around a list, an empty text for none, and its entries; `1 \pm 2` counts as two entries."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    brackets = text[0] + text[-1] if len(text) > 1 and text[0] in "([{" and encloses(text) else ""
    if brackets in ("()", "(]", "[)", "[]"):
        return brackets, split_top_level(text[1:-1], ENTRIES)
    entries = split_top_level(text[1:-1] if brackets == "{}" else text, ENTRIES)
    entries = [entry for entry in (re.sub(r"^(?:and|or)\s+|^\$|\$$", "", e).strip() for e in entries) if entry]
    signs = [re.sub(r"\\pm(?![a-z])|±", sign, entry) for entry in entries for sign in _signs(entry)]
    return "{}" if brackets == "{}" else "", signs


def _signs(entry: str) -> tuple[str, ...]:
    return (
        ("+", "-") if len(re.findall(r"\\pm(?![a-z])|±", entry)) == 1 else ("\\\\pm ",) if "\\pm" in entry else ("±",)
    )


def _same_set(entries: list[str], others: list[str]) -> bool:
    """Whether every entry equals one of the others and the reverse, repetitions left out."""
    if max(len(entries), len(others)) > MAX_ENTRIES:
        return entries == others
    entries, others = _distinct(entries), _distinct(others)
    if len(entries) != len(others):
        return False
    remaining = list(others)
    for entry in entries:
        match = next((other for other in remaining if equal(entry, other)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _distinct(entries: list[str]) -> list[str]:
    """The entries without those that equal an earlier one, such as `0.5` after `1/2`."""
    kept: list[str] = []
    for entry in entries:
        if not any(equal(entry, other) for other in kept):
            kept.append(entry)
    return kept
