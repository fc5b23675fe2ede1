"""Problems of the synthetic tasks, drawn once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from dpc_interp import Problem, load_problems


@pytest.fixture(scope="session")
def drawn() -> Callable[..., list[Problem]]:
    """Draw `n` test problems of a synthetic task."""

    @cache
    def draw(task: str, n: int = 400) -> list[Problem]:
        return load_problems(task, n=n, seed=7)

    return draw
