"""`rule`, the positive control: every step needs a rule that the question does not state.

`a blip b` is `a + k b` or `a - k b` with a factor k of each operator's own; a step names its rule as `blip + 6`.
`RULES` are this task's; they stand in no question, so only the prompt can carry them, and information must flow from it
into every step. While the reasoner was trained the rules changed from document to document
(`dpc_interp.reasoner.corpus`): a bare model can only guess.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from dpc_interp.tasks.problems import Problem

MAX_STEPS = 4
OPERATORS = ("blip", "zorp", "quix")
RULES: Mapping[str, tuple[str, int]] = {"blip": ("+", 6), "zorp": ("-", 3), "quix": ("+", 7)}
"""Operator -> sign and factor of its second operand."""
LARGEST = 12
"""Second operands reach so far: products that the reasoner mostly, not always, gets right."""
START = ("Start with {n}.", "Begin at {n}.", "Take the number {n}.")
APPLY = ("Then {op} {n}.", "Apply {op} {n}.", "Next comes {op} {n}.")
ASIDE = ("It is day {n}.", "The room has {n} chairs.", "There are {n} birds outside.")
ASK = ("Which number comes out?", "What is the result?", "Where does it end?")


def make(rng: random.Random, n_steps: int, rules: Mapping[str, tuple[str, int]] = RULES) -> Problem:
    """A problem of `n_steps` operators under `rules`."""
    value = rng.randint(20, 60)
    sentences = [rng.choice(START).format(n=value)]
    steps = []
    for _ in range(n_steps):
        op = rng.choice(OPERATORS)
        sign, factor = rules[op]
        n = rng.randint(1, LARGEST) if sign == "+" else rng.randint(0, min(LARGEST, value // factor))
        after = value + factor * n if sign == "+" else value - factor * n
        sentences.append(rng.choice(APPLY).format(op=op, n=n))
        steps.append(f"{op} {sign} {factor} with {n}: {value} {sign} {factor} * {n} = {after}")
        value = after
    for _ in range(rng.randint(0, 2)):
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(ASIDE).format(n=rng.randint(2, 40)))
    question = " ".join([*sentences, rng.choice(ASK)])
    return Problem("rule", question, "\n".join([*steps, f"#### {value}"]), str(value), n_steps)
