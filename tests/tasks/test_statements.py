"""Statements of an answer in a text, and the question that a model goes on with."""

from __future__ import annotations

import time

import pytest

from dpc_interp.tasks.answers import STOP_STRINGS
from dpc_interp.tasks.statements import find_statements, follow_on_start


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("9 + 8 = 17\n#### 17", [("#### 17", "17", "hashes")]),
        ("So the answer is **B**. It is odd.", [("So the answer is **B**", "B", "sentence")]),
        ("so $\\boxed{7}$.", [("\\boxed{7}", "7", "box")]),
        (
            "The answer is $\\boxed{7}$.",
            [("The answer is $\\boxed{7}$.", "7", "sentence"), ("\\boxed{7}", "7", "box")],
        ),
        ("#### 3\nThe answer is: 3", [("#### 3", "3", "hashes"), ("The answer is: 3", "3", "sentence")]),
        ("#### Step 1: add\n3 + 4", []),
        ("17", []),
    ],
)
def test_statements(text: str, stated: list[tuple[str, str, str]]) -> None:
    statements = find_statements(text)
    assert [(text[s.marker : s.end], s.answer, s.kind) for s in statements] == stated


@pytest.mark.parametrize("stop", STOP_STRINGS)
def test_stop_strings_begin_a_question(stop: str) -> None:
    assert follow_on_start(f"#### 18{stop} how?") == len("#### 18")
    assert follow_on_start(f"9 + 9 = 18{stop} how?") is None


@pytest.mark.parametrize("text", ["\nQuestion: how?" * 3000, "\\boxed{" * 3000, "#### Step 1: " * 1000])
def test_a_model_in_a_loop_takes_linear_time(text: str) -> None:
    start = time.process_time()
    assert follow_on_start(text) is None
    assert find_statements(text) == []
    assert time.process_time() - start < 1, "measured: 0.1 s; 6 s or more if it were not linear"
