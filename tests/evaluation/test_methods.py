"""Which methods need a trigger, and which names and contexts are valid."""

from __future__ import annotations

from contextlib import nullcontext
from typing import get_args

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.errors import UnknownNameError
from dpc_interp.evaluation.methods import MAIN_METHODS, METHODS, Fires, check_methods, needs_rule
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
        (["base", "pt", "always", "oracle"], False),
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
    assert {fires for fires, _ in METHODS.values()} == set(get_args(Fires))
    assert {corrupts for _, corrupts in METHODS.values()} == set(get_args(Corrupts))
    acting = [parts for parts in METHODS.values() if parts[0] != "never"]
    assert len(set(acting)) == len(acting), "no two methods corrupt the same answers in the same way"


def test_known_methods_and_contexts_pass() -> None:
    check_methods(["dpc", "pt"], {"mine": NamedContext()})
    check_methods([], {})


def test_unknown_methods_raise() -> None:
    with pytest.raises(UnknownNameError, match="unknown method 'magic'; known: base, pt, random"):
        check_methods(["dpc", "magic"], {})


def test_a_context_needs_its_own_name_and_a_repr() -> None:
    with pytest.raises(DPCInterpError, match="'dpc' is the name of a method; give the context another name"):
        check_methods([], {"dpc": NamedContext()})
    with pytest.raises(DPCInterpError, match="'mine' needs a repr that shows its options; make it a frozen dataclass"):
        check_methods([], {"mine": lambda model: nullcontext()})
