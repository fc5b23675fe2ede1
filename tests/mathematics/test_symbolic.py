"""Expressions are compared in another process, from any thread, without touching the caller's alarm."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from dpc_interp.mathematics.symbolic import MAX_SYMBOLIC_LENGTH, exact_value, same_expression

PAIRS = [("x^2+1", "1+x^2"), ("7!", "5040"), (r"\sqrt{8}", r"2\sqrt{2}"), ("x^2+1", "x^2+2"), ("7!", "5041")]
EQUAL = [True, True, True, False, False]


def test_every_thread_gets_the_same_verdict() -> None:
    assert [same_expression(*pair) for pair in PAIRS] == EQUAL
    same_expression.cache_clear()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda pair: same_expression(*pair), PAIRS)) == EQUAL


def test_the_alarm_of_the_caller_survives() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    try:
        handler = signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 30)
        assert same_expression("x^3+2", "2+x^3")
        assert signal.getsignal(signal.SIGALRM) is handler
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30
        assert rung == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_expressions_that_never_end_are_given_up() -> None:
    start = time.perf_counter()
    assert not same_expression("9^{9^{9^9}}", "9^{9^{9^8}}")
    assert time.perf_counter() - start < 60
    assert same_expression("x+1", "1+x"), "the next comparison works"


def test_values_are_exact_to_forty_digits() -> None:
    root = exact_value(r"\sqrt{2}")
    assert root is not None
    assert abs(root * root - 2) < Fraction(1, 10**35)
    assert exact_value("x") is None
    assert exact_value("1" * (MAX_SYMBOLIC_LENGTH + 1)) is None
