"""The functions of the process that compares expressions, called in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from dpc_interp.mathematics import symbolic_worker
from dpc_interp.mathematics.symbolic_worker import OutOfTimeError, processor_time_limit, result_of, same, value


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("1/2004!", "1/2006!", False),
        ("\\frac{1}{2^{99}}", "2^{-99}", True),
        ("1+\\frac{1}{2^{99}}", "1", False),
        ("\\sqrt2\\sqrt3-\\sqrt6", "0", True),
        ("0.5\\sqrt{2}", "\\frac{\\sqrt{2}}{2}", True),
        ("(1+i)^2", "2i", True),
        ("\\sin^2 x+\\cos^2 x", "1", True),
        ("x/2^{99}", "x/2^{98}", False),
        ("x<3", "(-\\infty,3)", True),
        ("x", "y", False),
        ("", "x", False),
        ("\\begin{pmatrix}1/2^{99}\\end{pmatrix}", "\\begin{pmatrix}1/2^{98}\\end{pmatrix}", False),
    ],
)
def test_same(answer: str, gold: str, expected: bool) -> None:
    assert same(answer, gold) is expected


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("\\sqrt{2}", "1.4142135623730950488"),
        ("\\frac1{12}", "0.08333333333333333"),
        ("x", None),
        ("i", None),
        ("", None),
    ],
)
def test_value(text: str, digits: str | None) -> None:
    number = value(text)
    assert number is None if digits is None else number is not None and number.startswith(digits)


def test_text_that_cannot_be_read_is_not_the_same() -> None:
    assert result_of("same", "\\frac{1", "}{") is False
    assert result_of("value", "\\frac{1") is None


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="the system has no timer of processor time")
def test_the_time_limit() -> None:
    def run() -> None:
        start = time.process_time()
        while time.process_time() - start < 5:
            pass

    previous = signal.getsignal(signal.SIGVTALRM)
    try:
        with pytest.raises(OutOfTimeError), processor_time_limit(0.05):
            run()
    finally:
        signal.signal(signal.SIGVTALRM, previous)


def test_the_program() -> None:
    requests = [["same", "x+1", "1+x"], ["value", "\\sqrt{4}"]]
    result = subprocess.run(
        [sys.executable, symbolic_worker.__file__, json.dumps([p for p in sys.path if p])],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line) for line in result.stdout.splitlines()] == ["ready", True, "2.0"]
