"""What examples in docstrings may use without defining it: a model and tuned prompts, here bundled ones."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def names_of_examples(doctest_namespace: dict[str, Any]) -> None:
    """Add the names to those of every example."""
    doctest_namespace |= {"model": "reasoner", "prompts": ["reasoner/story/seed0", "reasoner/story/seed1"]}
