"""Which methods need a trigger, which names and contexts are valid, and the deprecated name."""

from __future__ import annotations

from contextlib import nullcontext
from typing import get_args

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.errors import UnknownNameError
from dpc_interp.evaluation.methods import (
    MAIN_METHODS,
    METHODS,
    SHARED_METHODS,
    TRIGGERED,
    UNTRIGGERED,
    Fires,
    check_methods,
    needs_rule,
)
from dpc_interp.interventions.option_plans import Corrupts


class NamedContext:
    """A context that changes nothing."""

    def __repr__(self) -> str:
        return "NamedContext()"

    def __call__(self, model: object) -> nullcontext[None]:
        return nullcontext()


@pytest.mark.parametrize(
    ("methods", "needed"),
    [
        ([], False),
        (["bare", "pt", "always", "oracle"], False),
        (["instruct", "random_prompt", "cut_off"], False),
        (["dpc"], True),
        (["random"], True),
        (["always", "dpc, mask only"], True),
    ],
)
def test_needs_rule(methods: list[str], needed: bool) -> None:
    """`random` fires as often as the rule, so it needs one too."""
    assert needs_rule(methods) is needed


def test_methods_are_distinct_and_built_from_known_parts() -> None:
    assert set(MAIN_METHODS) <= set(METHODS)
    assert set(METHODS) == {*UNTRIGGERED, *TRIGGERED}
    assert len(set(METHODS)) == len(METHODS), "no method is both"
    assert {fires for fires, _ in TRIGGERED.values()} == set(get_args(Fires))
    assert {corrupts for _, corrupts in TRIGGERED.values()} == set(get_args(Corrupts))
    acting = list(TRIGGERED.values())
    assert len(set(acting)) == len(acting), "no two methods corrupt the same answers in the same way"


def test_shared_methods_do_not_read_the_tuned_prompt() -> None:
    """`cut_off` reads it until the end of the question."""
    assert set(UNTRIGGERED) - set(SHARED_METHODS) == {"cut_off", "pt"}


def test_known_methods_and_contexts_pass() -> None:
    assert check_methods(["dpc", "pt"], {"mine": NamedContext()}) == ["dpc", "pt"]
    assert check_methods([], {}) == []
    assert check_methods(METHODS, {}) == list(METHODS)


def test_base_is_the_deprecated_name_of_bare() -> None:
    with pytest.warns(DeprecationWarning, match="the method 'base' .*'bare'"):
        assert check_methods(("dpc", "base"), {}) == ["dpc", "bare"]


def test_unknown_methods_raise() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown method 'magic'; known: bare, instruct, random_prompt, cut_off, pt, random"
    ):
        check_methods(["dpc", "magic"], {})


def test_a_context_needs_its_own_name_and_a_repr() -> None:
    with pytest.raises(DPCInterpError, match="'dpc' is the name of a method; give the context another name"):
        check_methods([], {"dpc": NamedContext()})
    with pytest.raises(DPCInterpError, match="'mine' needs a repr that shows its options; make it a frozen dataclass"):
        check_methods([], {"mine": lambda model: nullcontext()})
