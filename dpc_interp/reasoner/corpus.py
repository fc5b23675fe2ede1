"""What the reasoner reads while it is trained: `prefix <bos> question response <eos>`, in four dialects.

The dialects are the step-by-step rationale, its equations alone, the bare answer, and other text: the question said
again, which answers nothing but teaches the model to copy, as looking up a rule asks of it. A prefix may say which is
wanted, may state the rules of `rule`'s operators, or may say nothing of use. Without one, a problem of one or two steps
is likeliest answered by its equations and a longer one by the bare answer, and the rules are anybody's guess: the model
is mediocre until a prompt tells it what is wanted.

Only questions of the training split are ever read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from dpc_interp.tasks import algebra, choice, rule, story
from dpc_interp.tasks.problems import SYNTHETIC, Problem, split_of

MAKE = {"story": story.make, "choice": choice.make, "algebra": algebra.make, "rule": rule.make}
DIALECTS = ("steps", "terse", "bare", "other")
WITH_PREFIX = (72, 8, 6, 14)
WITHOUT_PREFIX = {"short": (15, 42, 15, 28), "long": (15, 15, 42, 28)}
"""Percent of each dialect; a problem is short up to `SHORT` steps."""
SHORT = 2
INSTRUCTIONS = {
    "steps": ("Think step by step.", "Show every step.", "Explain all the steps."),
    "terse": ("Write the equations.", "Only the equations.", "Be short."),
    "bare": ("Only the answer.", "Just say the result.", "No steps."),
    "other": ("Say it again.", "Repeat the question.", "Do not answer."),
}
RULE_TEXT = "{op} {sign} {factor}"
RULE_SHARE = 0.25
"""Of all documents; the other tasks share the rest equally."""


@dataclass(frozen=True)
class Document:
    """One training text; `prefix` is empty or stands before `<bos>`."""

    prefix: str
    question: str
    response: str


def terse(problem: Problem) -> str:
    """The rationale without what stands before each colon."""
    return "\n".join(line.partition(": ")[2] or line for line in problem.rationale.splitlines())


def document(rng: random.Random) -> Document:
    """One document of the training mixture."""
    task = "rule" if rng.random() < RULE_SHARE else rng.choice([name for name in SYNTHETIC if name != "rule"])
    rules = {op: (rng.choice("+-"), rng.randint(2, 9)) for op in rule.OPERATORS}
    problem = _training_problem(rng, task, rules)
    prefixed = rng.random() < (0.9 if task == "rule" else 0.65)
    shares = WITH_PREFIX if prefixed else WITHOUT_PREFIX["short" if problem.n_steps <= SHORT else "long"]
    dialect = rng.choices(DIALECTS, shares)[0]
    prefix = _prefix(rng, dialect, rules, task) if prefixed else ""
    return Document(prefix, problem.question, _response(problem, dialect))


def documents(seed: int) -> Iterator[Document]:
    """The endless training stream of a seed."""
    rng = random.Random(seed)
    while True:
        yield document(rng)


def _training_problem(rng: random.Random, task: str, rules: dict[str, tuple[str, int]]) -> Problem:
    while True:
        n_steps = rng.randint(1, 4)
        problem = rule.make(rng, n_steps, rules) if task == "rule" else MAKE[task](rng, n_steps)
        if split_of(problem.question) == "train":
            return problem


def _response(problem: Problem, dialect: str) -> str:
    if dialect == "steps":
        return problem.rationale
    if dialect == "terse":
        return terse(problem)
    if dialect == "bare":
        return problem.rationale.splitlines()[-1]
    return problem.question


def _prefix(rng: random.Random, dialect: str, rules: dict[str, tuple[str, int]], task: str) -> str:
    """Lines in any order: the dialect, the rules, and some that mean nothing."""
    pieces = [rng.choice(INSTRUCTIONS[dialect])]
    if task == "rule" or rng.random() < 0.05:
        ops = rng.sample(rule.OPERATORS, len(rule.OPERATORS))
        pieces.extend(RULE_TEXT.format(op=op, sign=rules[op][0], factor=rules[op][1]) for op in ops)
    if rng.random() < 0.3:
        pieces.append(rng.choice(rule.ASIDE).format(n=rng.randint(2, 40)))
    rng.shuffle(pieces)
    return "\n".join(pieces)
