"""Boxes of LaTeX, by hand."""

from __future__ import annotations

import time

import pytest

from dpc_interp.mathematics.boxes import closing_braces, find_boxes, without_boxes


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("\\boxed{7}", ["7"]),
        ("\\fbox{7}", ["7"]),
        ("\\framebox{7}", ["7"]),
        ("\\framebox[2cm][c]{7}", ["7"]),
        ("\\boxed {7}", ["7"]),
        ("\\boxed2", ["2"]),
        ("\\boxed 3", ["3"]),
        ("$\\boxed25$", ["25"]),
        ("\\boxed-3", ["-3"]),
        ("\\boxed{\\frac{1}{2}}", ["\\frac{1}{2}"]),
        ("\\boxed\\frac{1}{2}", ["\\frac{1}{2}"]),
        ("\\boxed\\frac12.", ["\\frac12"]),
        ("\\boxed\\dfrac{1}{\\sqrt{2}}", ["\\dfrac{1}{\\sqrt{2}}"]),
        ("\\boxed\\sqrt{2}", ["\\sqrt{2}"]),
        ("\\boxed\\text{east}", ["\\text{east}"]),
        ("\\boxed\\pi", ["\\pi"]),
        ("\\boxed{\\{1, 2\\}}", ["\\{1, 2\\}"]),
        ("\\boxed{\\boxed{7}}", ["7"]),
        ("\\boxed{}", []),
        ("\\boxed{7", []),
        ("\\boxedx{7}", []),
        ("\\boxed{1} so \\boxed{2}", ["1", "2"]),
        ("$\\boxed{x=5}$ and $\\boxed{x=-3}$", ["x=5, x=-3"]),
        ("$\\boxed{1}$, $\\boxed{2}$, and $\\boxed{3}$", ["1, 2, 3"]),
        ("\\boxed{1}\\text{ or }\\boxed{2}", ["1, 2"]),
        ("\\boxed{1} \\quad \\boxed{2}", ["1, 2"]),
        ("$x = \\boxed{1}$ or $x = \\boxed{2}$", ["1, 2"]),
        ("\\boxed{1}\n\\boxed{1}", ["1"]),
        ("\\boxed{1}. Then \\boxed{2} or \\boxed{3}", ["1", "2, 3"]),
    ],
)
def test_contents(text: str, contents: list[str]) -> None:
    assert [box.content for box in find_boxes(text)] == contents


def test_places() -> None:
    text = "so $\\boxed{1}$ or $\\boxed{2}$."
    [box] = find_boxes(text)
    assert text[box.start : box.end] == "\\boxed{1}$ or $\\boxed{2}"


def test_closing_braces() -> None:
    assert closing_braces("{a{b}\\}c}") == {0: 8, 2: 4}
    assert closing_braces("{a{b}") == {2: 4}
    assert closing_braces("}{a}\\{b}") == {1: 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So $\\boxed{17}$.", "So ${17}$."),
        ("\\fbox {1} or \\framebox[2cm]{2}", "{1} or {2}"),
        ("\\boxed 3 and \\boxed\\frac12.", "{3} and {\\frac12}."),
        ("\\boxed{\\boxed{7}}", "{{7}}"),
        ("\\boxed{7", "{7"),
    ],
)
def test_without_boxes(text: str, expected: str) -> None:
    assert without_boxes(text) == expected


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("\\boxed{" * 3000, []),
        ("\\boxed{" * 3000 + "7}", ["7"]),
        ("\\boxed{" * 3000 + "7" + "}" * 3000, ["7"]),
        ("\\boxed{7} " * 3000, ["7"]),
        ("\\boxed[" * 3000, []),
        ("\\boxed{1}" + " and" * 3000 + " x \\boxed{2}", ["1", "2"]),
    ],
)
def test_a_model_in_a_loop_takes_linear_time(text: str, contents: list[str]) -> None:
    start = time.process_time()
    assert [box.content for box in find_boxes(text)] == contents
    assert time.process_time() - start < 1, "measured: 0.04 s, which would be 6 s to hours if it were not linear"
