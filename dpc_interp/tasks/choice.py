"""`choice`, in the style of AQuA: prices and rates, five options (`A 35 B 22 ...`); answer line `The answer is B`.

The wrong options lie near the right one, which has a random rank among them and a random letter. The rationale reads
the options in order up to the right one.
"""

from __future__ import annotations

import random

from dpc_interp.tasks.problems import Problem
from dpc_interp.tasks.story import NAMES

MAX_STEPS = 4
LETTERS = "ABCDE"
GOODS = ("pen", "cup", "book", "card", "ball", "key", "lamp", "hat", "map", "bag")
MOVERS = ("bus", "boat", "tram", "cyclist")


def make(rng: random.Random, n_steps: int) -> Problem:
    """A problem whose number takes `n_steps` equations; finding its letter is not counted."""
    scene, steps, value = (_shopping if rng.random() < 0.5 else _journey)(rng, n_steps)
    below = min(rng.randint(0, 4), value)
    near = (1, 2, 3, 4, 5, 7, 10)
    smaller = rng.sample([value - d for d in near if d <= value], below) if value >= 7 else range(value - below, value)
    options = [value, *smaller, *(value + d for d in rng.sample(near, 4 - below))]
    rng.shuffle(options)
    right = options.index(value)
    listed = [f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True)]
    rationale = "\n".join([*steps, " ".join(listed[: right + 1]), f"The answer is {LETTERS[right]}"])
    return Problem("choice", f"{scene} {' '.join(listed)}", rationale, LETTERS[right], n_steps)


def _shopping(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """1: one good; 2: its change from a budget; 3: two goods; 4: two goods and the change. Another price distracts."""
    who = rng.choice(NAMES)
    goods = rng.sample(GOODS, 3)
    price = [rng.randint(2, 9) for _ in goods]
    count = [rng.randint(2, 5) for _ in goods]
    bought = 1 if n_steps <= 2 else 2
    priced = [f"A {good} costs {p} coins." for good, p in zip(goods, price, strict=True)][: bought + rng.randint(0, 1)]
    rng.shuffle(priced)
    basket = " and ".join(f"{count[i]} {goods[i]}s" for i in range(bought))
    steps = [f"{count[i]} {goods[i]}s: {count[i]} * {price[i]} = {count[i] * price[i]}" for i in range(bought)]
    costs = [count[i] * price[i] for i in range(bought)]
    value = sum(costs)
    if bought == 2:
        steps.append(f"together: {costs[0]} + {costs[1]} = {value}")
    sentences = [*priced, f"{who} buys {basket}."]
    ask = rng.choice([f"How many coins does {who} pay?", "What is the total cost?"])
    if n_steps % 2 == 0:
        budget = rng.randint(value, min(99, value + 40))
        sentences.insert(rng.randint(0, len(sentences)), f"{who} has {budget} coins.")
        steps.append(f"left: {budget} - {value} = {budget - value}")
        value = budget - value
        ask = rng.choice([f"How many coins does {who} have left?", "How many coins are left?"])
    return " ".join([*sentences, ask]), steps, value


def _journey(rng: random.Random, n_steps: int) -> tuple[str, list[str], int]:
    """A distance at a constant rate, then legs forward and back."""
    who = rng.choice(MOVERS)
    rate, hours = rng.randint(2, 9), rng.randint(2, 9)
    value = rate * hours
    sentences = [rng.choice([f"A {who} goes {rate} km in an hour.", f"A {who} makes {rate} km every hour."])]
    if rng.random() < 0.5:
        aside = rng.choice([f"It carries {rng.randint(2, 40)} bags.", f"The {who} is {rng.randint(2, 40)} years old."])
        sentences.append(aside)
    sentences.append(f"It goes for {hours} hours.")
    steps = [f"{hours} hours: {hours} * {rate} = {value}"]
    for _ in range(n_steps - 1):
        forward = value < 3 or (value <= 79 and rng.random() < 0.5)
        leg = rng.randint(2, 20) if forward else rng.randint(2, min(20, value))
        sentences.append(f"Then it goes {'on' if forward else 'back'} {leg} km.")
        after = value + leg if forward else value - leg
        steps.append(f"{'on' if forward else 'back'} {leg}: {value} {'+' if forward else '-'} {leg} = {after}")
        value = after
    ask = rng.choice(["How many km is it from the start?", f"How far is the {who} from the start?"])
    return " ".join([*sentences, ask]), steps, value
