r"""The program of the process that compares expressions; `symbolic.py` starts it and reads its results.

It reads one JSON list a line, `["same", answer, gold]` or `["value", text]`, and writes one JSON value a line. The
texts are LaTeX. `math-verify` parses them and compares relations, sets, matrices and expressions with variables. Two
expressions without variables are compared here instead, to `DIGITS` significant digits: `math-verify` rounds to six
decimals, for which `1/2004!` and `1/2006!` are both 0. The file imports no module of the package, whose import takes
seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DIGITS = 40
"""Significant digits to which two numbers must agree; decimals such as `0.5` count as exact."""
GUARD_DIGITS = 15
MAX_EXPONENT = 400
"""Values above `10^MAX_EXPONENT`, or below its inverse, are not written out as decimals."""
CPU_SECONDS = 3
"""Processor time for one comparison. It does not depend on what else the machine runs, so verdicts are repeatable."""
MEMORY_BYTES = 4 * 2**30
SAMPLES = 2
"""Points at which two expressions with variables are evaluated after `math-verify` finds them equal."""


class OutOfTimeError(BaseException):
    """The comparison has used its processor time; no `except Exception` of a library catches it."""


def parse(text: str) -> list[Any]:
    """The expressions that `math-verify` reads in a LaTeX text; empty if it reads none."""
    from math_verify import LatexExtractionConfig
    from math_verify import parse as parse_latex

    return list(
        parse_latex(
            f"${text}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    )


def same(answer: str, gold: str) -> bool:
    """Whether two LaTeX texts are the same number, expression, relation, set or matrix.

    Args:
        answer: LaTeX without delimiters.
        gold: LaTeX without delimiters.

    Returns:
        True if they are the same; False also if one of them cannot be read.
    """
    from math_verify import verify

    parsed, parsed_gold = parse(answer), parse(gold)
    if not parsed or not parsed_gold:
        return False
    a, b = parsed[0], parsed_gold[0]
    if is_number(a) and is_number(b):
        return same_number(a, b)
    if not verify(parsed_gold, parsed, allow_set_relation_comp=True, timeout_seconds=None):
        return False
    if hasattr(a, "shape") and hasattr(b, "shape") and a.shape == b.shape:
        return all(agree_at_samples(x, y) for x, y in zip(a, b, strict=True))
    return agree_at_samples(a, b)


def value(text: str) -> str | None:
    """The value of a real number in LaTeX, such as `\\sqrt{2}`, to `DIGITS` significant digits.

    Args:
        text: LaTeX without delimiters.

    Returns:
        A decimal in exponent notation; None if the text is no real number or has more than `MAX_EXPONENT` places.
    """
    import mpmath

    parsed = parse(text)
    if not parsed or not is_number(parsed[0]):
        return None
    number = evaluate(parsed[0])
    if number is None or not number.is_real:
        return None
    with mpmath.workdps(DIGITS + GUARD_DIGITS):
        digits = mpmath.mpf(number)
        if digits and abs(mpmath.log10(abs(digits))) > MAX_EXPONENT:
            return None
        return str(mpmath.nstr(digits, DIGITS))


def is_number(expression: Any) -> bool:
    """Whether an expression is a finite number, without variables."""
    from sympy import Expr

    return isinstance(expression, Expr) and not exact(expression).free_symbols and evaluate(expression) is not None


def evaluate(expression: Any) -> Any:
    """The complex number that an expression without variables has, decimals taken as exact; None if it has none."""
    from sympy import N

    try:
        number = N(exact(expression), DIGITS + GUARD_DIGITS)
    except (ArithmeticError, TypeError, ValueError, AttributeError):
        return None
    return number if number.is_number and number.is_finite else None


def exact(expression: Any) -> Any:
    """The expression with decimals as fractions, and with the symbol i as the imaginary unit."""
    from sympy import Float, I, Rational

    decimals = {number: Rational(str(number)) for number in expression.atoms(Float)}
    return expression.xreplace(decimals | {s: I for s in expression.free_symbols if s.name == "i"})


def same_number(a: Any, b: Any) -> bool:
    """Whether two expressions without variables agree to `DIGITS` significant digits."""
    from sympy import simplify

    x, y = evaluate(a), evaluate(b)
    if x is None or y is None:
        return False
    size = max(abs(x), abs(y))
    if size == 0 or abs(x - y) <= size * 10**-DIGITS:
        return True
    # A difference of roots that is 0 evaluates to a number near the guard digits, never to 0.
    return bool(size < 10**-DIGITS and min(abs(x), abs(y)) == 0 and simplify(exact(a) - exact(b)) == 0)


def agree_at_samples(a: Any, b: Any) -> bool:
    """False if two expressions have clearly different values for some values of their variables."""
    from sympy import Expr, Rational

    if not isinstance(a, Expr) or not isinstance(b, Expr):
        return True
    a, b = exact(a), exact(b)
    variables = a.free_symbols | b.free_symbols
    names = sorted({variable.name for variable in variables})  # `x` has other assumptions in some texts
    for sample in range(SAMPLES):
        numbers = {name: Rational(13 + 10 * sample + 7 * k, 11 + k) for k, name in enumerate(names)}
        point = {variable: numbers[variable.name] for variable in variables}
        x, y = evaluate(a.xreplace(point)), evaluate(b.xreplace(point))
        if x is not None and y is not None and abs(x - y) > max(abs(x), abs(y)) * 10 ** -(DIGITS // 2):
            return False
    return True


@contextmanager
def processor_time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` after so much processor time; the main thread of a Unix process only."""
    if not hasattr(signal, "SIGVTALRM"):  # Windows: the parent's limit on elapsed time remains
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def limit_memory() -> None:
    """Keep a tower of powers from filling the machine's memory, where the system has such limits."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, hard))
    except (ImportError, ValueError, OSError):
        return


def result_of(call: str, *texts: str) -> bool | str | None:
    """The result of one call; what cannot be compared in time and memory is not the same."""
    try:
        with processor_time_limit(CPU_SECONDS):
            return same(*texts) if call == "same" else value(*texts)
    except (OutOfTimeError, Exception):  # libraries raise errors of every kind on text that is no mathematics
        return False if call == "same" else None


def main() -> None:
    """Read calls from standard input and write their results to standard output until the input ends."""
    sys.path[:] = json.loads(sys.argv[1])
    results = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no result
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        print(json.dumps(f"{error}"), file=results, flush=True)
        return
    limit_memory()
    sys.setrecursionlimit(5000)
    print(json.dumps("ready"), file=results, flush=True)
    for line in sys.stdin:
        print(json.dumps(result_of(*json.loads(line))), file=results, flush=True)


if __name__ == "__main__":
    main()
