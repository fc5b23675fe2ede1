r"""`algebra` and `rule`, two synthetic tasks of equations.

`algebra` is in the style of MATH: linear equations and chains of definitions; the answer line is `\boxed{7}`. A chain
may contain distractors: definitions that the requested variable does not depend on.

`rule` is the positive control: every step needs a rule that the question does not state. `a blip b` means `a + k b` or
`a - k b`, where every operator has its own factor k. A rationale step states the rule of its operator as `blip + 6`. No
question states a rule of `RULES`: only the prompt can supply it, so information must flow from the prompt into every
rationale step. The training documents of the reasoner draw new rules for every document (`bundled/corpus.py`), so the
bare model can only guess.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

from dpc_interp.tasks.problem import Problem

# The order and the number of the random draws in this file decide every problem of a seed; the bundled prompts were
# tuned on these problems. `tests/tasks/test_registry.py` fails if one of them changes.

MAX_STEPS = 4
VARIABLES = "abcdmnpqtxyz"
SOLVE = ("Solve {equation} for {x}.", "Find {x} if {equation}.", "What is {x} when {equation}?")
EVALUATE = ("Find {x}.", "What is {x}?", "Evaluate {x}.")
OPERATORS = ("blip", "zorp", "quix")
RULES: Mapping[str, tuple[str, int]] = {"blip": ("+", 6), "zorp": ("-", 3), "quix": ("+", 7)}
"""Operator -> sign and factor of its second operand."""
MAX_OPERAND = 12
"""Largest second operand. The reasoner gets most, but not all, of the resulting products right."""
OPENINGS = ("Start with {n}.", "Begin at {n}.", "Take the number {n}.")
APPLICATIONS = ("Then {op} {n}.", "Apply {op} {n}.", "Next comes {op} {n}.")
DISTRACTORS = ("It is day {n}.", "The room has {n} chairs.", "There are {n} birds outside.")
FINAL_QUESTIONS = ("Which number comes out?", "What is the result?", "Where does it end?")


def make_algebra(rng: random.Random, n_steps: int) -> Problem:
    """Make a problem of `algebra`: a linear equation, or a chain of definitions.

    Args:
        rng: source of all random choices.
        n_steps: number of rationale steps that solve the equation, or of definitions after the first.

    Returns:
        A problem without an id.
    """
    question, steps, value = (_equation if rng.random() < 0.5 else _chain)(rng, n_steps)
    return Problem("algebra", question, "\n".join([*steps, f"\\boxed{{{value}}}"]), str(value), n_steps)


def _equation(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """A linear equation: its question, its rationale steps and its solution.

    The number of steps decides its form. 1: x + b = r or a x = r; 2: a x + b = r; 3: a x + b = c x + r;
    4: a (x + k) = c x + r.
    """
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
        a += c  # a - c stays at least 2, so no number becomes negative
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
    """A first value, then every variable from the one before: question, rationale steps, value of the last variable.

    Up to two further definitions are distractors.
    """
    names = rng.sample(VARIABLES, n_steps + 3)
    value = rng.randint(1, 20)
    definitions = [f"Let {names[0]} = {value}."]
    steps = []
    for previous, name in pairwise(names[: n_steps + 1]):
        term, equation, value = _operation(rng, previous, value)
        definitions.append(f"Let {name} = {term}.")
        steps.append(f"{name} = {term}: {equation}")
    for distractor in names[n_steps + 1 : n_steps + 1 + rng.randint(0, 2)]:
        place = rng.randint(1, len(definitions))
        term, _, _ = _operation(rng, names[0], rng.randint(1, 20))
        definitions.insert(place, f"Let {distractor} = {term}.")
    return " ".join([*definitions, rng.choice(EVALUATE).format(x=names[n_steps])]), steps, value


def _operation(rng: random.Random, x: str, value: int) -> tuple[str, str, int]:
    """One operation on the variable `x`: its term, its equation at the given value, and its result."""
    kind = rng.choice("+-*")
    if kind == "*" and value <= 24:
        k = rng.randint(2, 4)
        return f"{k} {x}", f"{k} * {value} = {k * value}", k * value
    if (kind == "-" and value >= 3) or value > 79:
        k = rng.randint(1, min(20, value))
        return f"{x} - {k}", f"{value} - {k} = {value - k}", value - k
    k = rng.randint(1, 20)
    return f"{x} + {k}", f"{value} + {k} = {value + k}", value + k


def make_rule(rng: random.Random, n_steps: int, rules: Mapping[str, tuple[str, int]] = RULES) -> Problem:
    """Make a problem of `rule`.

    Args:
        rng: source of all random choices.
        n_steps: number of operators that are applied, each of them one rationale step.
        rules: operator -> sign ("+" or "-") and factor of its second operand.

    Returns:
        A problem without an id.
    """
    value = rng.randint(20, 60)
    sentences = [rng.choice(OPENINGS).format(n=value)]
    steps = []
    for _ in range(n_steps):
        op = rng.choice(OPERATORS)
        sign, factor = rules[op]
        # A subtraction never goes below zero.
        n = rng.randint(1, MAX_OPERAND) if sign == "+" else rng.randint(0, min(MAX_OPERAND, value // factor))
        after = value + factor * n if sign == "+" else value - factor * n
        sentences.append(rng.choice(APPLICATIONS).format(op=op, n=n))
        steps.append(f"{op} {sign} {factor} with {n}: {value} {sign} {factor} * {n} = {after}")
        value = after
    for _ in range(rng.randint(0, 2)):
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(DISTRACTORS).format(n=rng.randint(2, 40)))
    question = " ".join([*sentences, rng.choice(FINAL_QUESTIONS)])
    return Problem("rule", question, "\n".join([*steps, f"#### {value}"]), str(value), n_steps)
