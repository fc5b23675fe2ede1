"""The options on which generated texts and their answers depend, as one object for stages and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpc_interp.execution.digest import digest
from dpc_interp.generation.stopping import resolve_max_new_tokens
from dpc_interp.models.encoding import QuestionFormat, encode_questions, merged_format
from dpc_interp.models.hooked import HookedModel
from dpc_interp.tasks.answers import Extraction
from dpc_interp.tasks.problem import Problem


@dataclass(frozen=True)
class TextOptions:
    """How texts are generated and their answers read; the fields are arguments of `generate`.

    Attributes:
        max_new_tokens: the most tokens of a text; None: a length by task.
        question_format: how a question becomes the text that the model reads; None: not given.
        stop_strings: a text ends before the first of them.
        extraction: how the answer is read; None: that of the problem.
    """

    max_new_tokens: int | None
    question_format: QuestionFormat | None
    stop_strings: tuple[str, ...]
    extraction: Extraction | None

    def for_prompt(self, recipe: Mapping[str, Any]) -> TextOptions:
        """These options with the question format of a prompt, which the bare model is compared on as well.

        Args:
            recipe: of the prompt.
        """
        return replace(self, question_format=merged_format(self.question_format, recipe))


def settle_max_new_tokens(model: HookedModel, problems: Sequence[Problem], n_virtual: int, text: TextOptions) -> int:
    """Encode every question, so that none is refused later, and fix the length at which texts are cut off.

    Args:
        model: that will generate.
        problems: all problems that are compared, so that one length holds for all of them.
        n_virtual: virtual tokens before each question.
        text: with the question format of the prompt.

    Raises:
        DPCInterpError: a question that cannot be encoded, or does not fit the context.
    """
    questions = encode_questions(model, problems, n_virtual, text.max_new_tokens or 0, given=text.question_format)
    n_read = n_virtual + max(map(len, questions), default=0)
    return resolve_max_new_tokens(model, problems, n_read, text.max_new_tokens)


def name_of(value: object) -> Any:
    """A function's name with a hash of its code, which is the same in every process; any other value unchanged.

    Args:
        value: a template or an extraction.
    """
    if not callable(value):
        return value
    code = getattr(value, "__code__", None)
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if code is None:
        return name
    constants = [constant for constant in code.co_consts if not hasattr(constant, "co_code")]
    return f"{name} {digest(code.co_code, repr(constants).encode())}"
