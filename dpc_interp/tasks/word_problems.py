"""`story` and `choice`, two synthetic tasks of word problems.

`story` is in the style of GSM8K: a person's things grow and shrink; the answer line is `#### 17`. Distractors
(sentences about other people, and about other things of the same person) are inserted among the events, so neither the
number of sentences nor the last number gives away the answer. Quantities stay between 0 and 99.

`choice` is in the style of AQuA: prices and rates with five options; the answer line is `The answer is B`. The options
follow the question: `A 35 B 22 C 36 D 30 E 37`. The wrong options are close to the correct one, which has a random rank
among them and a random letter. The rationale copies the options in order, up to the correct one.
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
LETTERS = "ABCDE"
GOODS = ("pen", "cup", "book", "card", "ball", "key", "lamp", "hat", "map", "bag")
VEHICLES = ("bus", "boat", "tram", "cyclist")
OPTION_DISTANCES = (1, 2, 3, 4, 5, 7, 10)
"""Distances between a wrong option and the correct one."""


def make_story(rng: random.Random, n_steps: int) -> Problem:
    """Make a problem of `story`.

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
        sentence, step, value = _story_event(rng, value, words)
        sentences.append(sentence)
        steps.append(step)
    for _ in range(rng.randint(0, 2)):
        distractor = rng.choice(DISTRACTORS).format(n=rng.randint(2, 40), **words)
        sentences.insert(rng.randint(0, len(sentences)), distractor)
    question = " ".join([*sentences, rng.choice(FINAL_QUESTIONS).format(**words)])
    return Problem("story", question, "\n".join([*steps, f"#### {value}"]), str(value), n_steps)


def _story_event(rng: random.Random, value: int, words: dict[str, str]) -> tuple[str, str, int]:
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


def make_choice(rng: random.Random, n_steps: int) -> Problem:
    """Make a problem of `choice`.

    Args:
        rng: source of all random choices.
        n_steps: number of equations that lead to the correct number; finding its letter is not counted.

    Returns:
        A problem without an id.
    """
    scene, steps, value = (_shopping if rng.random() < 0.5 else _journey)(rng, n_steps)
    n_smaller = min(rng.randint(0, 4), value)
    if value >= 7:  # then four of the distances are small enough for four smaller options
        smaller = rng.sample([value - distance for distance in OPTION_DISTANCES if distance <= value], n_smaller)
    else:
        smaller = list(range(value - n_smaller, value))
    larger = [value + distance for distance in rng.sample(OPTION_DISTANCES, 4 - n_smaller)]
    options = [value, *smaller, *larger]
    rng.shuffle(options)
    correct = options.index(value)
    listed = [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True)]
    rationale = "\n".join([*steps, " ".join(listed[: correct + 1]), f"The answer is {LETTERS[correct]}"])
    return Problem("choice", f"{scene} {' '.join(listed)}", rationale, LETTERS[correct], n_steps)


def _shopping(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """A purchase: its question, its rationale steps and the correct number.

    The number of steps decides what is bought. 1: one good; 2: one good, and the change from a budget; 3: two goods;
    4: two goods, and the change. The price of a good that nobody buys may be given as a distractor.
    """
    who = rng.choice(NAMES)
    goods = rng.sample(GOODS, 3)
    price = [rng.randint(2, 9) for _ in goods]
    count = [rng.randint(2, 5) for _ in goods]
    n_goods = 1 if n_steps <= 2 else 2
    prices = [f"A {good} costs {p} coins." for good, p in zip(goods, price, strict=True)][: n_goods + rng.randint(0, 1)]
    rng.shuffle(prices)
    basket = " and ".join(f"{count[i]} {goods[i]}s" for i in range(n_goods))
    steps = [f"{count[i]} {goods[i]}s: {count[i]} * {price[i]} = {count[i] * price[i]}" for i in range(n_goods)]
    costs = [count[i] * price[i] for i in range(n_goods)]
    value = sum(costs)
    if n_goods == 2:
        steps.append(f"together: {costs[0]} + {costs[1]} = {value}")
    sentences = [*prices, f"{who} buys {basket}."]
    final_question = rng.choice([f"How many coins does {who} pay?", "What is the total cost?"])
    if n_steps % 2 == 0:
        budget = rng.randint(value, min(99, value + 40))
        sentences.insert(rng.randint(0, len(sentences)), f"{who} has {budget} coins.")
        steps.append(f"left: {budget} - {value} = {budget - value}")
        value = budget - value
        final_question = rng.choice([f"How many coins does {who} have left?", "How many coins are left?"])
    return " ".join([*sentences, final_question]), steps, value


def _journey(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """A distance at a constant rate, then legs forward and back: question, rationale steps, correct number."""
    who = rng.choice(VEHICLES)
    rate, hours = rng.randint(2, 9), rng.randint(2, 9)
    value = rate * hours
    sentences = [rng.choice([f"A {who} goes {rate} km in an hour.", f"A {who} makes {rate} km every hour."])]
    if rng.random() < 0.5:
        # Both sentences are formatted before one is chosen: two random numbers are drawn either way.
        sentences.append(
            rng.choice([f"It carries {rng.randint(2, 40)} bags.", f"The {who} is {rng.randint(2, 40)} years old."])
        )
    sentences.append(f"It goes for {hours} hours.")
    steps = [f"{hours} hours: {hours} * {rate} = {value}"]
    for _ in range(n_steps - 1):
        is_forward = value < 3 or (value <= 79 and rng.random() < 0.5)
        leg = rng.randint(2, 20) if is_forward else rng.randint(2, min(20, value))
        sentences.append(f"Then it goes {'on' if is_forward else 'back'} {leg} km.")
        after = value + leg if is_forward else value - leg
        steps.append(f"{'on' if is_forward else 'back'} {leg}: {value} {'+' if is_forward else '-'} {leg} = {after}")
        value = after
    final_question = rng.choice(["How many km is it from the start?", f"How far is the {who} from the start?"])
    return " ".join([*sentences, final_question]), steps, value
