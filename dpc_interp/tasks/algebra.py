r"""`algebra`, in the style of MATH: linear equations and chains of definitions; the answer line is `\boxed{7}`.

Chains carry definitions that the asked variable does not depend on.
"""

from __future__ import annotations

import random
from itertools import pairwise

from dpc_interp.tasks.problems import Problem

MAX_STEPS = 4
VARIABLES = "abcdmnpqtxyz"
SOLVE = ("Solve {equation} for {x}.", "Find {x} if {equation}.", "What is {x} when {equation}?")
EVALUATE = ("Find {x}.", "What is {x}?", "Evaluate {x}.")


def make(rng: random.Random, n_steps: int) -> Problem:
    """An equation, or a chain of definitions, of `n_steps` steps."""
    question, steps, value = (_equation if rng.random() < 0.5 else _chain)(rng, n_steps)
    return Problem("algebra", question, "\n".join([*steps, f"\\boxed{{{value}}}"]), str(value), n_steps)


def _equation(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """1: x + b = r or a x = r; 2: a x + b = r; 3: a x + b = c x + r; 4: a (x + k) = c x + r."""
    x, value = rng.choice(VARIABLES), rng.randint(1, 12)
    a, b = rng.randint(2, 6), rng.randint(1, 20)
    if n_steps == 1 and rng.random() < 0.5:
        equation = f"{x} + {b} = {value + b}"
        steps = [f"subtract {b}: {value + b} - {b} = {value}"]
    elif n_steps == 1:
        equation = f"{a} {x} = {a * value}"
        steps = [f"divide by {a}: {a * value} / {a} = {value}"]
    else:
        steps = []
        c = rng.randint(1, 4) if n_steps >= 3 else 0
        a += c
        if n_steps == 4:
            k = rng.randint(1, 5)
            b = a * k
            steps.append(f"expand: {a} * {k} = {b}")
        left = f"{a} ({x} + {b // a})" if n_steps == 4 else f"{a} {x} + {b}"
        right = (a - c) * value + b
        equation = f"{left} = {c} {x} + {right}" if c else f"{left} = {right}"
        if c:
            steps.append(f"subtract {c} {x}: {a} - {c} = {a - c}")
        steps.append(f"subtract {b}: {right} - {b} = {right - b}")
        steps.append(f"divide by {a - c}: {right - b} / {a - c} = {value}")
    return rng.choice(SOLVE).format(equation=equation, x=x), steps, value


def _chain(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """A first value, then each variable from the one before it; up to two definitions lead elsewhere."""
    names = rng.sample(VARIABLES, n_steps + 3)
    value = rng.randint(1, 20)
    definitions = [f"Let {names[0]} = {value}."]
    steps = []
    for before, after in pairwise(names[: n_steps + 1]):
        term, equation, value = _operation(rng, before, value)
        definitions.append(f"Let {after} = {term}.")
        steps.append(f"{after} = {term}: {equation}")
    for extra in names[n_steps + 1 : n_steps + 1 + rng.randint(0, 2)]:
        place = rng.randint(1, len(definitions))
        term, _, _ = _operation(rng, names[0], rng.randint(1, 20))
        definitions.insert(place, f"Let {extra} = {term}.")
    return " ".join([*definitions, rng.choice(EVALUATE).format(x=names[n_steps])]), steps, value


def _operation(rng: random.Random, x: str, value: int) -> tuple[str, str, int]:
    """One operation on `x`: its term, its equation with the value put in, and the value after it."""
    kind = rng.choice("+-*")
    if kind == "*" and value <= 24:
        k = rng.randint(2, 4)
        return f"{k} {x}", f"{k} * {value} = {k * value}", k * value
    if (kind == "-" and value >= 3) or value > 79:
        k = rng.randint(1, min(20, value))
        return f"{x} - {k}", f"{value} - {k} = {value - k}", value - k
    k = rng.randint(1, 20)
    return f"{x} + {k}", f"{value} + {k} = {value + k}", value + k
