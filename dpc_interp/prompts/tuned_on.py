"""What a prompt was tuned on, compared with what it is evaluated on: the same questions, or another question format."""

from __future__ import annotations

from collections.abc import Sequence

from dpc_interp.errors import warn_user
from dpc_interp.execution.digest import digest
from dpc_interp.models.encoding import DEFAULT_TEMPLATE
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.tasks.problem import Problem

QUESTIONS = "questions"
"""Key of a recipe: the hashes of the questions that the prompt was tuned on."""
ONLY_START = {"init_text", "init_special_tokens"}
"""What an adapter of PEFT records of its tuning."""


def question_hashes(problems: Sequence[Problem]) -> str:
    """Eight hexadecimal digits for each distinct question, sorted, with spaces between them.

    Args:
        problems: any problems.
    """
    return " ".join(sorted({digest(problem.question.strip().encode())[:8] for problem in problems}))


def warn_of_training_questions(prompt: SoftPrompt, problems: Sequence[Problem], split: str) -> None:
    """Warn where a prompt is evaluated on questions that it was tuned on; adapters of PEFT do not record theirs.

    Args:
        prompt: the tuned prompt.
        problems: that it is evaluated on.
        split: what they are, for the message: `test` or `validation`.
    """
    asked = question_hashes(problems).split()
    seen = set(str(prompt.recipe.get(QUESTIONS, "")).split()).intersection(asked)
    if seen:
        warn_user(
            f"the prompt {prompt.name!r} was tuned on {len(seen)} of the {len(asked)} {split} questions, so that its "
            "answers to them are no evidence; give other problems"
        )


def warn_of_unknown_format(prompt: SoftPrompt, problems: Sequence[Problem], has_template: bool) -> None:
    """Warn where nothing says how questions were written when an adapter of PEFT was tuned.

    Args:
        prompt: the prompt.
        problems: whose questions it is read with.
        has_template: whether the caller gives a template.
    """
    is_of_peft = bool(prompt.base_model) and prompt.recipe.keys() <= ONLY_START
    if is_of_peft and not has_template and any(problem.template is None for problem in problems):
        warn_user(
            f"the adapter {prompt.name!r} does not say in which format it was tuned, so that questions are read as "
            f"{DEFAULT_TEMPLATE!r}; give template= (--template) the format of its tuning, or this one if it is right"
        )
