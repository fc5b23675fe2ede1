"""Option letters in their usual forms, and texts that only look like one."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.option_letters import read_gold_letter, read_letter


@pytest.mark.parametrize(
    "text", ["B", "(b)", "[B]", "**B**", "$B$", "B.", "B) 25", "B. 25", "option B", "Choice b", r"\textbf{(B)}\ 25"]
)
def test_forms_of_a_letter(text: str) -> None:
    assert read_letter(text) == "B"


@pytest.mark.parametrize("text", ["A dog", "A or B", "A/B", "F", "AB", "", "17", "A, B", "Apple"])
def test_no_letter(text: str) -> None:
    assert read_letter(text) is None


@pytest.mark.parametrize(("gold", "letter"), [("B", "B"), ("(B)", "B"), ("B) 25", "B"), ("A - 3", None), ("17", None)])
def test_letters_of_golds(gold: str, letter: str | None) -> None:
    assert read_gold_letter(gold) == letter
