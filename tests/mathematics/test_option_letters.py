"""Option letters, by hand."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.option_letters import read_gold_letter, read_letter


@pytest.mark.parametrize(
    "text",
    ["B", "b", "(b)", "(B)", "B.", "B)", "[B]", "**B**", "$B$", ": B", "option B", "Option (B)", "the answer B",
     "(option B)", "B) 25", "B. 25 km", "B: 25", "(B) 25", "\\textbf{(B)}\\ 25", "\\text{B}", "B - 25", "B is correct",
     "B, since 2 is even"],
)  # fmt: skip
def test_letters(text: str) -> None:
    assert read_letter(text) == "B"


@pytest.mark.parametrize(
    "text", ["1", "F", "A dog", "a dog", "A or B", "A/B", "A and B", "A, B", "(A) or (B)", "abc", "", "AB", "2B", "B^2"]
)
def test_no_letter(text: str) -> None:
    assert read_letter(text) is None


@pytest.mark.parametrize(
    ("gold", "letter"),
    [("B", "B"), ("b", "B"), ("(C) 21", "C"), ("\\text{(E)}", "E"), ("A - 3", None), ("C + 1", None), ("17", None)],
)
def test_gold_letters(gold: str, letter: str | None) -> None:
    assert read_gold_letter(gold) == letter
