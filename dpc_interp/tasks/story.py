"""`story`, in the style of GSM8K: a person's things grow and shrink; the answer line is `#### 17`.

Sentences about other people, and about the same person's other things, are scattered among the events: neither the
number of sentences nor the last number tells the answer. Quantities stay between 0 and 99.
"""

from __future__ import annotations

import random

from dpc_interp.tasks.problems import Problem

MAX_STEPS = 4
NAMES = ("Tom", "Mia", "Ann", "Ben", "Sam", "Eva", "Leo", "Zoe", "Max", "Ida", "Kim", "Raj")
THINGS = ("apples", "pens", "cups", "books", "coins", "cards", "shells", "stamps", "eggs", "nuts", "balls", "keys")
START = ("{who} has {n} {what}.", "{who} starts with {n} {what}.", "In the morning {who} has {n} {what}.")
GAIN = (
    "{who} buys {n} {what}.",
    "{who} finds {n} {what}.",
    "{who} gets {n} {what} from {other}.",
    "{who} picks up {n} {what}.",
)
LOSS = (
    "{who} sells {n} {what}.",
    "{who} loses {n} {what}.",
    "{who} gives {n} {what} to {other}.",
    "{who} drops {n} {what}.",
)
TIMES = {2: "The number of {what} of {who} doubles.", 3: "The number of {what} of {who} triples."}
HALVE = "Then {who} gives half of the {what} to {other}."
ASIDE = (
    "{other} has {n} {what}.",
    "{other} buys {n} {what}.",
    "{other} is {n} years old.",
    "{who} also has {n} {thing}.",
)
ASK = ("How many {what} does {who} have now?", "How many {what} are left with {who}?", "Count the {what} of {who}.")


def make(rng: random.Random, n_steps: int) -> Problem:
    """A problem of `n_steps` events after the starting amount."""
    who, other = rng.sample(NAMES, 2)
    what, thing = rng.sample(THINGS, 2)
    names = {"who": who, "other": other, "what": what, "thing": thing}
    value = rng.randint(2, 40)
    sentences = [rng.choice(START).format(n=value, **names)]
    steps = []
    for _ in range(n_steps):
        sentence, step, value = _event(rng, value, names)
        sentences.append(sentence)
        steps.append(step)
    for _ in range(rng.randint(0, 2)):
        aside = rng.choice(ASIDE).format(n=rng.randint(2, 40), **names)
        sentences.insert(rng.randint(0, len(sentences)), aside)
    question = " ".join([*sentences, rng.choice(ASK).format(**names)])
    return Problem("story", question, "\n".join([*steps, f"#### {value}"]), str(value), n_steps)


def _event(rng: random.Random, value: int, names: dict[str, str]) -> tuple[str, str, int]:
    """One event: its sentence, its line in the rationale and the value after it."""
    kind = rng.choice(["gain", "gain", "loss", "loss", "times", "half"])
    if kind == "times" and value <= 33:
        factor = rng.choice(list(TIMES))
        after = value * factor
        verb = "doubles" if factor == 2 else "triples"
        return TIMES[factor].format(**names), f"{verb}: {value} * {factor} = {after}", after
    if kind == "half" and value >= 2 and value % 2 == 0:
        return HALVE.format(**names), f"half: {value} / 2 = {value // 2}", value // 2
    gain = value < 3 or (kind != "loss" and value <= 79)
    n = rng.randint(2, 20) if gain else rng.randint(2, min(20, value))
    template = rng.choice(GAIN if gain else LOSS)
    verb = template.split()[1]
    after = value + n if gain else value - n
    return template.format(n=n, **names), f"{verb} {n}: {value} {'+' if gain else '-'} {n} = {after}", after
