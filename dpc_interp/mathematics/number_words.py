"""Numbers in words, such as `thirteen`, `twenty-five`, `one hundred and five` or `minus two thousand`."""

from __future__ import annotations

import re

SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
WORD = "|".join(sorted((*SMALL, *TENS, *SCALES), key=len, reverse=True))
NUMERAL = re.compile(
    rf"(?i)(?P<sign>(?:minus|negative)\s+|-\s*)?(?P<words>(?:an?\s+(?=hundred|thousand|million|billion|trillion))?"
    rf"(?:{WORD})(?:(?:\s*-\s*|\s+)(?:and\s+)?(?:{WORD}))*)(?![\w-])"
)


def words_to_digits(text: str) -> str:
    """Write the number at the beginning of a text in digits: `twenty-five apples` becomes `25 apples`.

    Args:
        text: an answer.

    Returns:
        The text with digits; the text itself if it does not begin with one number in words (`five and six`).
    """
    match = NUMERAL.match(text)
    value = None if match is None else _value(match["words"].casefold())
    if match is None or value is None:
        return text
    return f"{'-' if match['sign'] else ''}{value}{text[match.end() :]}"


def _value(words: str) -> int | None:
    """The value of a numeral; None if its words do not form one number."""
    total, below_thousand, last_scale, previous = 0, 0, 10**15, ""
    for word in re.split(r"[\s-]+", words):
        if word in SCALES:
            scale = SCALES[word]
            if not below_thousand or (below_thousand >= 100 and scale == 100) or scale >= last_scale:
                return None
            if scale == 100:
                below_thousand *= 100
            else:
                total, below_thousand, last_scale = total + below_thousand * scale, 0, scale
        elif word == "and":
            if previous not in SCALES:
                return None
        elif word in ("a", "an"):
            below_thousand = 1
        else:
            value = SMALL.get(word, TENS.get(word, 0))
            is_digit_after_tens = previous in TENS and 0 < value < 10
            if (previous and not is_digit_after_tens and previous not in (*SCALES, "and")) or (previous and not value):
                return None
            below_thousand += value
        previous = word
    return total + below_thousand
