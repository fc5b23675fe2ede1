"""`story`, a synthetic task in the style of GSM8K: a person's things grow and shrink; the answer line is `#### 17`.

Distractors (sentences about other people, and about other things of the same person) are inserted among the events, so
neither the number of sentences nor the last number gives away the answer. Quantities stay between 0 and 99.
"""

from __future__ import annotations

import random

from dpc_interp.tasks.problem import Problem

# The order and the number of the random draws in this file decide every problem of a seed; the bundled prompts were
# tuned on these problems. `tests/tasks/test_registry.py` fails if one of them changes.

MAX_STEPS = 4
NAMES = ("Tom", "Mia", "Ann", "Ben", "Sam", "Eva", "Leo", "Zoe", "Max", "Ida", "Kim", "Raj")
THINGS = ("apples", "pens", "cups", "books", "coins", "cards", "shells", "stamps", "eggs", "nuts", "balls", "keys")
OPENINGS = ("{who} has {n} {what}.", "{who} starts with {n} {what}.", "In the morning {who} has {n} {what}.")
GAINS = (
    "{who} buys {n} {what}.",
    "{who} finds {n} {what}.",
    "{who} gets {n} {what} from {other}.",
    "{who} picks up {n} {what}.",
)
LOSSES = (
    "{who} sells {n} {what}.",
    "{who} loses {n} {what}.",
    "{who} gives {n} {what} to {other}.",
    "{who} drops {n} {what}.",
)
MULTIPLICATIONS = {2: "The number of {what} of {who} doubles.", 3: "The number of {what} of {who} triples."}
"""Factor -> sentence."""
HALVING = "Then {who} gives half of the {what} to {other}."
DISTRACTORS = (
    "{other} has {n} {what}.",
    "{other} buys {n} {what}.",
    "{other} is {n} years old.",
    "{who} also has {n} {thing}.",
)
FINAL_QUESTIONS = (
    "How many {what} does {who} have now?",
    "How many {what} are left with {who}?",
    "Count the {what} of {who}.",
)


def make(rng: random.Random, n_steps: int) -> Problem:
    """Make a problem.

    Args:
        rng: source of all random choices.
        n_steps: number of events after the starting amount, each of them one rationale step.

    Returns:
        A problem without an id.
    """
    who, other = rng.sample(NAMES, 2)
    what, thing = rng.sample(THINGS, 2)
    words = {"who": who, "other": other, "what": what, "thing": thing}
    value = rng.randint(2, 40)
    sentences = [rng.choice(OPENINGS).format(n=value, **words)]
    steps = []
    for _ in range(n_steps):
        sentence, step, value = _event(rng, value, words)
        sentences.append(sentence)
        steps.append(step)
    for _ in range(rng.randint(0, 2)):
        distractor = rng.choice(DISTRACTORS).format(n=rng.randint(2, 40), **words)
        sentences.insert(rng.randint(0, len(sentences)), distractor)
    question = " ".join([*sentences, rng.choice(FINAL_QUESTIONS).format(**words)])
    return Problem("story", question, "\n".join([*steps, f"#### {value}"]), str(value), n_steps)


def _event(rng: random.Random, value: int, words: dict[str, str]) -> tuple[str, str, int]:
    """One event: its sentence, its rationale step and the value after it."""
    kind = rng.choice(["gain", "gain", "loss", "loss", "times", "half"])
    if kind == "times" and value <= 33:  # three times 33 is 99
        factor = rng.choice(list(MULTIPLICATIONS))
        after = value * factor
        verb = "doubles" if factor == 2 else "triples"
        return MULTIPLICATIONS[factor].format(**words), f"{verb}: {value} * {factor} = {after}", after
    if kind == "half" and value >= 2 and value % 2 == 0:
        return HALVING.format(**words), f"half: {value} / 2 = {value // 2}", value // 2
    # A kind that would leave the range 0 to 99 becomes a gain or a loss that does not.
    is_gain = value < 3 or (kind != "loss" and value <= 79)
    n = rng.randint(2, 20) if is_gain else rng.randint(2, min(20, value))
    template = rng.choice(GAINS if is_gain else LOSSES)
    verb = template.split()[1]
    after = value + n if is_gain else value - n
    return template.format(n=n, **words), f"{verb} {n}: {value} {'+' if is_gain else '-'} {n} = {after}", after
