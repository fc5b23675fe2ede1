"""`rule`, a synthetic task and the positive control: every step needs a rule that the question does not state.

`a blip b` means `a + k b` or `a - k b`, where every operator has its own factor k. A rationale step states the rule of
its operator as `blip + 6`. No question states a rule of `RULES`: only the prompt can supply it, so information must
flow from the prompt into every rationale step. The training documents of the reasoner draw new rules for every
document (`bundled/corpus.py`), so the bare model can only guess.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from dpc_interp.tasks.problem import Problem

# The order and the number of the random draws in this file decide every problem of a seed; the bundled prompts were
# tuned on these problems. `tests/tasks/test_registry.py` fails if one of them changes.

MAX_STEPS = 4
OPERATORS = ("blip", "zorp", "quix")
RULES: Mapping[str, tuple[str, int]] = {"blip": ("+", 6), "zorp": ("-", 3), "quix": ("+", 7)}
"""Operator -> sign and factor of its second operand."""
MAX_OPERAND = 12
"""Largest second operand. The reasoner gets most, but not all, of the resulting products right."""
OPENINGS = ("Start with {n}.", "Begin at {n}.", "Take the number {n}.")
APPLICATIONS = ("Then {op} {n}.", "Apply {op} {n}.", "Next comes {op} {n}.")
DISTRACTORS = ("It is day {n}.", "The room has {n} chairs.", "There are {n} birds outside.")
FINAL_QUESTIONS = ("Which number comes out?", "What is the result?", "Where does it end?")


def make(rng: random.Random, n_steps: int, rules: Mapping[str, tuple[str, int]] = RULES) -> Problem:
    """Make a problem.

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
