"""Boxes of LaTeX, by hand."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.boxes import closing_brace, find_boxes


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


def test_closing_brace() -> None:
    assert closing_brace("{a{b}\\}c}", 1) == 8
    assert closing_brace("{a{b}", 1) is None
