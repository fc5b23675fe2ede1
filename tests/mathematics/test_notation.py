"""Markup that does not change what is meant is removed, and plain text is written as LaTeX."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.notation import encloses, numeral_value, plain, split_top_level, to_latex


@pytest.mark.parametrize(
    "text", ["**17**", r"$\mathbf{17}$", "{17}", r"\(17.\)", " 17. ", "`17`", r"\boxed{17}", "~17"]
)
def test_markup_is_removed(text: str) -> None:
    assert plain(text) == "17"


def test_entries_are_split_outside_of_brackets() -> None:
    assert [part.strip() for part in split_top_level("1, (2, 3), [4, 5]", ",")] == ["1", "(2, 3)", "[4, 5]"]
    assert encloses("(1, 2)")
    assert not encloses("(1) + (2)")


@pytest.mark.parametrize(("text", "value"), [("101_2", 5), ("52_8", 42), ("17", None), ("102_2", None)])
def test_numerals_with_a_base(text: str, value: int | None) -> None:
    numeral = numeral_value(text)
    assert (None if numeral is None else numeral[1]) == value


def test_plain_signs_become_latex() -> None:
    assert "\\sqrt" in to_latex("sqrt(2)")
    assert "\\infty" in to_latex(plain("infinity"))
    assert "\\le" in to_latex("x <= 3")
