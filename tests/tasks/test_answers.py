"""The answer that a text states, the line that it begins on, and whether it is correct."""

from __future__ import annotations

import pytest

from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.answers import answer_start, extract_answer, is_correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 + 8 = 17\n#### 17", "17"),
        ("####17", "17"),
        ("#### -3", "-3"),
        ("#### 1,234", "1234"),
        ("#### 2.5", "2.5"),
        ("#### 17.", "17"),
        ("#### 17 apples", "17"),
        ("#### 1\nso\n#### 2", "2"),
        ("The answer is B", "B"),
        ("the answer is (C).", "C"),
        ("The answer is B\n#### 4", "4"),
        ("#### 4\nThe answer is B", "B"),
        ("x = 7\n\\boxed{7}", "7"),
        ("\\boxed{ x + 1 }", "x + 1"),
        ("17", None),
        ("", None),
        ("####", None),
        ("The answer is 5", None),
        ("The answer is Apples", None),
        ("The answer is F", None),
        ("\\boxed{7", None),
        ("\\boxed{1,234}", "1234"),
        ("\\boxed{1,2}", "1,2"),
        ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, \\frac{1}{2}\\}}", "\\{1, \\frac{1}{2}\\}"),
        ("\\boxed{\\frac{1}{2}", None),
        ("#### 4 and \\boxed{7}", "7"),
        ("\\boxed{7} and #### 4", "4"),
        ("#### $1,234.50", "1234.50"),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 5\n#### 1,234", "1234", "1234"),
        ("it is $18.", None, "18"),
        ("#### 5 and 6", "5", "6"),
        ("#### 5\n#### 6", "5", "6"),
        ("none", None, None),
    ],
)
def test_filters_of_lm_evaluation_harness(text: str, strict: str | None, flexible: str | None) -> None:
    assert extract_answer(text, "strict") == strict
    assert extract_answer(text, "flexible") == flexible


def test_unknown_mode() -> None:
    with pytest.raises(UnknownNameError, match="unknown mode 'loose'; known: marked, strict, flexible"):
        extract_answer("#### 17", "loose")


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("17", "17", True),
        ("17.0", "17", True),
        ("017", "17", True),
        ("1234", "1,234", True),
        ("-3", "3", False),
        ("17", "71", False),
        ("B", "B", True),
        ("B", "C", False),
        ("b", "B", False),
        ("x + 1", "x + 1", True),
        ("17", "B", False),
        (None, "17", False),
        ("", "17", False),
    ],
)
def test_is_correct(answer: str | None, gold: str, expected: bool) -> None:
    assert is_correct(answer, gold) is expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n#### 17", "#### 17"),
        ("a\nso it is #### 17\n", "so it is #### 17\n"),
        ("#### 1\nb\n#### 2\nc", "#### 2\nc"),
        ("a\nb", ""),
        ("#### 1", "#### 1"),
        ("a\nso $\\boxed{1}$\nb", "so $\\boxed{1}$\nb"),
    ],
)
def test_answer_starts_at_the_line_of_the_last_marker(text: str, line: str) -> None:
    assert text[answer_start(text) :] == line
