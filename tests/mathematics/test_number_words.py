"""Numbers in words, by hand and by a second way to write them."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.number_words import SMALL, TENS, words_to_digits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thirteen", "13"),
        ("Twenty-five apples", "25 apples"),
        ("one hundred and five", "105"),
        ("a hundred", "100"),
        ("twelve hundred", "1200"),
        ("two thousand", "2000"),
        ("two thousand and five", "2005"),
        ("one hundred five thousand", "105000"),
        ("two million three hundred thousand", "2300000"),
        ("minus five", "-5"),
        ("negative twenty-one", "-21"),
        ("zero", "0"),
        ("two and a half", "2 and a half"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert words_to_digits(text) == expected


@pytest.mark.parametrize(
    "text",
    ["five and six", "five six", "twenty and five", "twenty eleven", "two hundred five hundred", "one zero", "hundred",
     "one-third", "twenty-fifth", "oneness", "fiver", "a", "17", ""],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert words_to_digits(text) == text


def test_numbers_below_a_million_are_read_back() -> None:
    def below_hundred(number: int) -> str:
        names = {value: word for word, value in (SMALL | TENS).items()}
        return names[number] if number in names else f"{names[number // 10 * 10]}-{names[number % 10]}"

    def below_thousand(number: int) -> str:
        hundreds = f"{below_hundred(number // 100)} hundred" if number >= 100 else ""
        rest = below_hundred(number % 100) if number % 100 or not hundreds else ""
        return " and ".join(part for part in (hundreds, rest) if part)

    def name(number: int) -> str:
        thousands = f"{below_thousand(number // 1000)} thousand" if number >= 1000 else ""
        rest = below_thousand(number % 1000) if number % 1000 or not thousands else ""
        return " ".join(part for part in (thousands, rest) if part)

    assert name(215_017) == "two hundred and fifteen thousand seventeen"
    numbers = [*range(2000), *range(2000, 10**6, 997)]
    assert [words_to_digits(name(number)) for number in numbers] == [str(number) for number in numbers]
