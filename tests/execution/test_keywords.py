"""Keywords of a call become fields of the settings that have them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dpc_interp import DPCInterpError, Options, RunConfig
from dpc_interp.errors import UnknownNameError
from dpc_interp.execution.keywords import changed_keywords, read_keywords


@dataclass(frozen=True)
class What:
    gamma: float = 10
    seed: int = 0


@dataclass(frozen=True)
class How:
    batch_size: int = 128
    max_steps: int = 5


def call(**fields: object) -> list[object]:
    """A public function, which passes its keywords on."""
    return read_keywords(fields, What(seed=3), How())


def test_each_keyword_changes_the_settings_that_have_it() -> None:
    assert call(batch_size=2, gamma=5) == [What(5, 3), How(2)]
    assert call() == [What(seed=3), How()]


def test_unknown_keywords_are_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown option 'gama'; known: gamma, seed, batch_size, max_steps"):
        call(gama=5)


def test_old_keywords_work_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="n_steps= is deprecated .* use max_steps="):
        assert call(n_steps=7)[1] == How(max_steps=7)


def test_old_and_new_keyword_together_are_an_error() -> None:
    error = pytest.raises(DPCInterpError, match="n_steps= is the old name of max_steps=")
    with pytest.warns(DeprecationWarning, match="max_steps="), error:
        call(max_steps=7, n_steps=7)


def test_an_old_name_that_is_itself_a_field_needs_no_warning() -> None:
    @dataclass(frozen=True)
    class Old:
        patience: int = 1

    assert read_keywords({"patience": 2}, Old()) == [Old(2)]


def test_only_what_differs_from_the_defaults_is_changed() -> None:
    assert changed_keywords(Options(), RunConfig()) == {}
    given = {"gamma": 5, "deep": (1,), "batch_size": 3}
    options, run = read_keywords(given, Options(), RunConfig())
    assert changed_keywords(options, run) == given
