"""The options of generated texts, and how functions among them are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from dpc_interp import Options, Problem, QuestionFormat
from dpc_interp.errors import ContextLengthError
from dpc_interp.generation.text_options import TextOptions, name_of, settle_max_new_tokens
from dpc_interp.models.hooked import HookedModel


def test_format_of_the_prompt_counts_where_the_call_gives_none() -> None:
    recipe = {"template": "Q: {question}\nA:", "prepend_bos": True}
    assert Options().text.for_prompt(recipe).question_format == QuestionFormat("Q: {question}\nA:", None, True)
    given = Options(template="{question}?", prepend_bos=False).text.for_prompt(recipe)
    assert given.question_format == QuestionFormat("{question}?", None, False)
    assert Options().text.for_prompt({}).question_format is None


def test_one_length_holds_for_all_problems(model: HookedModel) -> None:
    problems = [Problem("story", "Tom has 9 apples." * k, "", "1", 1, str(k)) for k in (1, 2)]
    text = TextOptions(None, None, (), None)
    assert settle_max_new_tokens(model, problems, 5, text) == 96
    with pytest.raises(ContextLengthError):
        settle_max_new_tokens(model, problems, 5, TextOptions(model.cfg.n_ctx, None, (), None))


def test_functions_are_recorded_by_name_and_code() -> None:
    first, same, other = (eval(f"lambda q: q + {end!r}") for end in ("a", "a", "b"))
    assert name_of(first) == name_of(same) != name_of(other)
    assert name_of("marked") == "marked"
    record = Options(template=QuestionFormat(first), extraction=other).record()
    assert json.loads(json.dumps(record)) == record | {"stop_strings": list(record["stop_strings"])}
    assert record["template"]["template"] == name_of(first)


def test_functions_that_capture_or_call_something_else_are_recorded_apart() -> None:
    def pick(k: int) -> Callable[[str], str]:
        return lambda text: text.split()[k]

    def join(text: str, end: str = "") -> str:
        return text + end

    def outer(name: str) -> Callable[[str], str]:
        inner = {"max": lambda text: max(text), "min": lambda text: min(text)}
        return inner[name]

    for first, other in (
        (pick(0), pick(-1)),
        (outer("max"), outer("min")),
        (partial(join, end="a"), partial(join, end="b")),
        (partial(join, end="a"), partial(pick(0))),
    ):
        assert name_of(first) != name_of(other)
    assert name_of(pick(2)) == name_of(pick(2))
    assert name_of(partial(join, end="a")) == name_of(partial(join, end="a"))
