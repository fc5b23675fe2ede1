"""The options on which generated texts and their answers depend, as one object for stages and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import CodeType
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
    """A function's name with a hash of its code and of what it captures; any other value unchanged.

    It is the same in every process unless the function captures an object whose repr is not.

    Args:
        value: a template or an extraction.
    """
    if not callable(value):
        return value
    if isinstance(value, partial):
        arguments = [*value.args, *(part for item in sorted(value.keywords.items()) for part in item)]
        return f"partial {name_of(value.func)} {digest(*(_stated(argument) for argument in arguments))}"
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    code = getattr(value, "__code__", None)
    if code is None:
        return name
    captured = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    defaults = [getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None)]
    return f"{name} {digest(*_parts_of(code), *(_stated(part) for part in (*captured, *defaults)))}"


def _parts_of(code: CodeType) -> list[bytes]:
    """What a function computes: its instructions, the names in them and its constants, nested functions included."""
    parts = [code.co_code, repr(code.co_names).encode()]
    for constant in code.co_consts:
        parts += _parts_of(constant) if isinstance(constant, CodeType) else [repr(constant).encode()]
    return parts


def _stated(value: object) -> bytes:
    return str(name_of(value) if callable(value) else repr(value)).encode()
