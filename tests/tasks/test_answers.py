"""Which answer a text gives, and whether it is right."""

from __future__ import annotations

import pytest

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
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
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
def test_is_correct(answer: str | None, gold: str, right: bool) -> None:
    assert is_correct(answer, gold) is right


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n#### 17", "#### 17"),
        ("a\nso it is #### 17\n", "so it is #### 17\n"),
        ("#### 1\nb\n#### 2\nc", "#### 2\nc"),
        ("a\nb", ""),
        ("#### 1", "#### 1"),
    ],
)
def test_answer_starts_with_the_line_of_the_last_marker(text: str, line: str) -> None:
    assert text[answer_start(text) :] == line
