"""The committed results of `make verdicts`; what the command writes is tested in `test_commands.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

COMMITTED = sorted((Path(__file__).parents[2] / "figures").glob("*/provenance.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_committed_figures_are_within_their_pages(file: Path, cut_off: Callable[[Path], list[str]]) -> None:
    assert cut_off(file.parent) == []


@pytest.mark.parametrize("file", COMMITTED, ids=lambda path: path.parent.name)
def test_nothing_committed_was_selected_on_the_test_split(file: Path, check_provenance: Callable[[Path], None]) -> None:
    check_provenance(file)


def test_verdicts_of_both_models_are_committed() -> None:
    assert [file.parent.name for file in COMMITTED] == ["reasoner", "smollm2-135m"]
