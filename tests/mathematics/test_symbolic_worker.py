"""What the process computes, called here in this one."""

from __future__ import annotations

import pytest

from dpc_interp.mathematics.symbolic_worker import parse, result_of, same, value


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("x+1", "1+x", True),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
        (r"\{1,2\}", r"\{2,1\}", True),
        ("(3,4]", "(3,4]", True),
        ("(3,4]", "(3,5]", False),
    ],
)
def test_same(answer: str, gold: str, expected: bool) -> None:
    assert same(answer, gold) is expected


def test_values_and_refusals() -> None:
    text = value(r"\frac{1}{3}")
    assert text is not None
    assert text.startswith("0.33333333333333333333")
    assert value("x") is None
    assert parse("x+1")


def test_a_call_gives_its_result_or_none() -> None:
    assert result_of("same", "x+1", "1+x") is True
    assert result_of("value", "x") is None
