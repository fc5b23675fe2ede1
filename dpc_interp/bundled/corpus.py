"""The training documents of the bundled reasoner: `prefix <bos> question response <eos>`.

The response is written in one of four dialects: the step-by-step rationale (`steps`), only its equations (`terse`),
the bare answer (`bare`), and the question repeated (`other`). Repeating answers nothing, but it teaches the model to
copy, which it needs for looking up a rule in its prefix.

A prefix may request a dialect, may state the rules of the operators of the task `rule`, and may contain lines that mean
nothing. Without a prefix the model has to guess: a problem of one or two steps is most likely answered by its
equations, a longer one by the bare answer, and the rules of the operators are unknown. So the model is mediocre until
a prompt supplies what a prefix would.

Only questions of the training split occur. The documents of a seed never change: a change in the order of the random
draws changes every document after it, and with them the shipped tokenizer and weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from dpc_interp.tasks import equations
from dpc_interp.tasks.problem import Problem, split_of
from dpc_interp.tasks.registry import MAKERS, SYNTHETIC

DIALECTS = ("steps", "terse", "bare", "other")
WITH_PREFIX = (72, 8, 6, 14)
"""Percent of each dialect among documents with a prefix, in the order of `DIALECTS`."""
WITHOUT_PREFIX = {"short": (15, 42, 15, 28), "long": (15, 15, 42, 28)}
"""Percent of each dialect among documents without a prefix, for problems of at most `SHORT` steps and longer ones."""
SHORT = 2
INSTRUCTIONS = {
    "steps": ("Think step by step.", "Show every step.", "Explain all the steps."),
    "terse": ("Write the equations.", "Only the equations.", "Be short."),
    "bare": ("Only the answer.", "Just say the result.", "No steps."),
    "other": ("Say it again.", "Repeat the question.", "Do not answer."),
}
RULE_TEXT = "{op} {sign} {factor}"
RULE_SHARE = 0.25
"""Share of `rule` among the documents; the other tasks share the rest equally."""
PREFIX_SHARE = 0.65
"""Share of documents with a prefix."""
RULE_PREFIX_SHARE = 0.9
"""The same among documents of `rule`, which cannot be answered without one."""
MAX_STEPS = 4
"""The most rationale steps of a problem."""

Rules = dict[str, tuple[str, int]]
"""Operator -> sign and factor of its second operand."""


@dataclass(frozen=True)
class Document:
    """One training document.

    Attributes:
        prefix: text before `<bos>`; may be empty.
        question: of the problem.
        response: the text that the model learns to write.
    """

    prefix: str
    question: str
    response: str


def documents(seed: int) -> Iterator[Document]:
    """The endless stream of training documents of a seed."""
    rng = random.Random(seed)
    while True:
        yield draw_document(rng)


def draw_document(rng: random.Random) -> Document:
    """Draw one document of the training mixture.

    Args:
        rng: source of all random draws; its state advances.
    """
    task = "rule" if rng.random() < RULE_SHARE else rng.choice([name for name in SYNTHETIC if name != "rule"])
    # the rules are drawn for every task, because a prefix of any task may state them
    rules = {op: (rng.choice("+-"), rng.randint(2, 9)) for op in equations.OPERATORS}
    problem = _training_problem(rng, task, rules)
    has_prefix = rng.random() < (RULE_PREFIX_SHARE if task == "rule" else PREFIX_SHARE)
    shares = WITH_PREFIX if has_prefix else WITHOUT_PREFIX["short" if problem.n_steps <= SHORT else "long"]
    dialect = rng.choices(DIALECTS, shares)[0]
    prefix = _prefix(rng, dialect, rules, task) if has_prefix else ""
    return Document(prefix, problem.question, _response(problem, dialect))


def equations_only(problem: Problem) -> str:
    """The rationale of a problem without the words before each colon."""
    return "\n".join(line.partition(": ")[2] or line for line in problem.rationale.splitlines())


def _training_problem(rng: random.Random, task: str, rules: Rules) -> Problem:
    while True:
        n_steps = rng.randint(1, MAX_STEPS)
        problem = equations.make_rule(rng, n_steps, rules) if task == "rule" else MAKERS[task](rng, n_steps)
        if split_of(problem.question) == "train":
            return problem


def _response(problem: Problem, dialect: str) -> str:
    if dialect == "steps":
        return problem.rationale
    if dialect == "terse":
        return equations_only(problem)
    if dialect == "bare":
        return problem.rationale.splitlines()[-1]
    return problem.question


def _prefix(rng: random.Random, dialect: str, rules: Rules, task: str) -> str:
    """Lines in random order: a request for the dialect, perhaps the rules, perhaps a line that means nothing."""
    lines = [rng.choice(INSTRUCTIONS[dialect])]
    if task == "rule" or rng.random() < 0.05:
        operators = rng.sample(equations.OPERATORS, len(equations.OPERATORS))
        lines.extend(RULE_TEXT.format(op=op, sign=rules[op][0], factor=rules[op][1]) for op in operators)
    if rng.random() < 0.3:
        lines.append(rng.choice(equations.DISTRACTORS).format(n=rng.randint(2, 40)))
    rng.shuffle(lines)
    return "\n".join(lines)
