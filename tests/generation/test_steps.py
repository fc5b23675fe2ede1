"""Where the steps of a rationale end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dpc_interp.generation.steps import step_ends


def test_cuts_of_one_line_do_not_fall_within_numbers() -> None:
    text = "It is 3.5 km. Is it far? No."
    assert [text[a:b] for a, b in pairwise([0, *step_ends(text)])] == [
        "It is 3.5 km. ",
        "Is it far? ",
        "No.",
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="a1.?! \n", max_size=60))
def test_cuts_fall_between_characters_that_belong_to_steps(text: str) -> None:
    """Cuts are sorted; each step but the last ends in white space; in a text of several lines, each line is a step."""
    *inner, end = step_ends(text)
    assert end == len(text)
    assert inner == sorted(set(inner))
    assert all(0 < cut < end for cut in inner)
    steps = [text[a:b] for a, b in pairwise([0, *inner, end])]
    assert all(step[-1].isspace() for step in steps[:-1])
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) > 1:
        assert [step.strip() for step in steps] == lines
