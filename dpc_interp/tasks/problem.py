"""`Problem`, one question with a written solution; the train, validation and test splits, which share no problem.

A question belongs to exactly one split, which a hash of its text decides. No seed can move a question from one split to
another (docs/method.md, section 6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dpc_interp.errors import DPCInterpError
from dpc_interp.repr_html import card, first_line, text_block
from dpc_interp.tasks.answers import Extraction

SPLITS = {"train": 80, "validation": 10, "test": 10}
"""Split -> its share of all possible questions, in percent."""

MAX_REJECTIONS = 10_000
"""Rejected draws in a row after which `draw_distinct` concludes that no new problem is left."""


PLACE = "{question}"
"""Where the question stands in a template."""
Template = str | Callable[[str], str]
"""A text with `{question}`, a function from a question to a text, or the name `chat`."""


@dataclass(frozen=True)
class Problem:
    """One question with a written solution.

    Attributes:
        task: name of the task.
        question: the text that the model reads.
        rationale: the gold solution, one rationale step per line, the answer line last; empty if none is known.
        answer: the gold answer without its marker, such as "17" or "B".
        n_steps: the difficulty: number of rationale steps, not counting the answer line.
        id: a name that no other problem of the same evaluation has.
        template: how the question becomes the text that a model reads, see `QuestionFormat`; None: no template of its
            own.
        extraction: how an answer is read from a text, see `extract_answer`.

    Example:
        >>> import dpc_interp as dpc
        >>> row = {"question": "What is 9 + 8?", "rationale": "9 + 8 = 17", "answer": 17}
        >>> problem = dpc.load_problems([row])[0]
        >>> problem.answer, problem.n_steps
        ('17', 1)
    """

    task: str
    question: str
    rationale: str
    answer: str
    n_steps: int
    id: str = ""
    template: Template | None = None
    extraction: Extraction = "marked"

    def __repr__(self) -> str:
        return f"Problem({self.id!r}, {first_line(self.question)!r}, answer={first_line(self.answer)!r})"

    def _repr_html_(self) -> str:
        facts = {"task": self.task, "answer": self.answer, "steps": self.n_steps}
        written = [text_block("written solution", self.rationale)] if self.rationale.strip() else []
        return card(f"Problem {self.id}", facts, text_block("question", self.question), *written)


def check_template(template: Template | None) -> None:
    """Check that a template has a place for the question.

    Args:
        template: see `QuestionFormat`; None: no template.

    Raises:
        DPCInterpError: a text without `{question}`.
    """
    if isinstance(template, str) and template != "chat" and PLACE not in template:
        raise DPCInterpError(f'the template {template[:60]!r} lacks "{PLACE}"; write where the question stands')


def check_distinct(problems: Sequence[Problem]) -> None:
    """Check that no two problems share an id; rows of result frames are joined by it.

    Args:
        problems: the problems of one evaluation.

    Raises:
        DPCInterpError: two problems have the same id.
    """
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DPCInterpError(f"two problems have the id {problem.id!r}; give every problem a different id")
        seen.add(problem.id)


def question_hash(question: str) -> int:
    """Hash a question to 64 bits, the same on every machine and in every process.

    Args:
        question: any text.

    Returns:
        An integer from 0 to 2**64 - 1.
    """
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big")


def split_of(question: str) -> str:
    """Look up the split of a question.

    Args:
        question: the text of the question.

    Returns:
        A key of `SPLITS`.
    """
    bucket = question_hash(question) % 100
    for split, percent in SPLITS.items():
        if bucket < percent:
            return split
        bucket -= percent
    raise AssertionError("SPLITS covers 100 percent")


def draw_distinct(draw: Callable[[int], Problem | None], name: str, split: str, n: int) -> list[Problem]:
    """Draw distinct problems of one split by rejection.

    Args:
        draw: returns a random problem, or None to reject its own draw; its argument is the number of problems accepted
            so far.
        name: name of the task, for the error message.
        split: problems of other splits are rejected.
        n: number of problems.

    Returns:
        `n` problems with different questions, in the order in which they were drawn.

    Raises:
        DPCInterpError: `MAX_REJECTIONS` draws in a row gave no new problem.
    """
    problems: dict[str, Problem] = {}
    rejections = 0
    while len(problems) < n:
        problem = draw(len(problems))
        if problem is None or problem.question in problems or split_of(problem.question) != split:
            rejections += 1
            if rejections == MAX_REJECTIONS:
                raise DPCInterpError(
                    f"only {len(problems)} distinct {split} problems of {name} were found; request fewer"
                )
        else:
            rejections = 0
            problems[problem.question] = problem
    return list(problems.values())


def take(problems: Iterable[Problem], n: int | None, max_steps: int | None, source: str) -> list[Problem]:
    """Take the first problems that are easy enough; the rest of an iterator is not read.

    Args:
        problems: any number of problems.
        n: number of problems to take; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.
        source: where the problems come from, for the error messages.

    Returns:
        1 to `n` problems.

    Raises:
        DPCInterpError: `max_steps` is below 1, or no problem is left.
    """
    if max_steps is not None and max_steps < 1:
        raise DPCInterpError(f"max_steps is {max_steps}; allow at least 1 step")
    taken: list[Problem] = []
    is_empty = True
    for problem in problems:
        is_empty = False
        if max_steps is None or problem.n_steps <= max_steps:
            taken.append(problem)
        if len(taken) == n:
            break
    if is_empty:
        raise DPCInterpError(f"{source} is empty; give at least one problem")
    if not taken:
        raise DPCInterpError(f"{source} has no problem of at most {max_steps} steps; raise max_steps")
    return taken
