"""Markup that does not change an answer, numerals with a base, and plain symbols in LaTeX."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpc_interp.mathematics.notation import (
    bare_number,
    encloses,
    numeral_value,
    plain,
    sentence_end,
    split_top_level,
    to_latex,
    without_text_commands,
)


@pytest.mark.parametrize(
    "text",
    ["17", " 17 ", "17.", "**17**", "__17__", "*17*", "`17`", "$17$", "$$17$$", "\\(17\\)", "\\[17\\]", "{17}",
     "{{17}}", "\\mathbf{17}", "\\boldsymbol{17}", "\\text{17}", "\\boxed{17}", "**$17$**.", "~17", "\\approx 17",
     "= 17", "about 17",
     "17, because 9 + 8 = 17", "17, so he has 17", "\uff11\uff17", "17\u200b", "17\\\\", "17,"],
)  # fmt: skip
def test_markup_is_removed(text: str) -> None:
    assert plain(text) == "17"


@pytest.mark.parametrize(
    "text",
    ["\\{17\\}", "(3,4]", "{1}+{2}", "2**3", "$a$ and $b$", "\\frac{1}{2}", "7!", "x_1", "17 apples", "[17]", ".5"],
)
def test_the_rest_stays(text: str) -> None:
    assert plain(text) == text


@given(st.text(alphabet="1a{}()$*\\ .=~_^", max_size=12))
def test_plain_ends_and_is_stable(text: str) -> None:
    assert plain(plain(text)) == plain(text)


def test_signs() -> None:
    assert plain("\u22123") == plain("\u20133") == "-3"
    assert plain("10\u207b\u00b2") == "10^{-2}"
    assert plain("52\u2088") == "52_{8}"
    assert plain("infinity") == plain("\u221e") == plain("+\\infty") == plain("\\infty ") == "\\infty"
    assert plain("-infinity") == "-\\infty"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("52_8", ("52", 42)),
        ("52_{8}", ("52", 42)),
        ("101_2", ("101", 5)),
        ("(101)_2", ("101", 5)),
        ("1A_{16}", ("1A", 26)),
        ("52 base 8", ("52", 42)),
        ("52 (base eight)", ("52", 42)),
        ("52_{\\text{eight}}", ("52", 42)),
        ("92_8", ("92", None)),
        ("52_1", ("52", None)),
        ("52", None),
        ("x_8", None),
        ("52_n + 1", None),
    ],
)
def test_numerals(text: str, value: tuple[str, int | None] | None) -> None:
    assert numeral_value(text) == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\\$1,234", "1234"),
        ("- 3", "-3"),
        ("(72)", "72"),
        ("72 €", "72"),
        ("+3", "3"),
        (".5", ".5"),
        ("7x", None),
        ("", None),
    ],
)
def test_bare_numbers(text: str, number: str | None) -> None:
    assert bare_number(text) == number


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("72. So", "72"),
        ("72.So", "72"),
        ("3.14. So", "3.14"),
        ("the U.S. dollar", "the U.S. dollar"),
        ("Mr. Smith. He", "Mr. Smith"),
        ("B. 25", "B"),
        ("yes! So", "yes"),
        ("72", "72"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    assert text[: sentence_end(text)] == sentence


def test_brackets() -> None:
    assert encloses("(3,4]")
    assert not encloses("(1)+(2)")
    assert split_top_level("(1,2),3", ",") == ["(1,2)", "3"]
    assert split_top_level("1),(2", ",") == ["1),(2"]
    assert without_text_commands("5\\text{ cm}\\,x") == "5 cm x"


def test_latex() -> None:
    assert to_latex("sqrt(2)") == "\\sqrt{2}"
    assert to_latex("52_8 + 1") == "42 + 1"
    assert to_latex("x**2") == "x^2"
    assert to_latex("(0,1) U (2,3)") == "(0,1) \\cup (2,3)"
