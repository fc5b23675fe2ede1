"""One-line messages, and deprecated keywords that still work."""

from __future__ import annotations

import pickle
import warnings

import pytest

from dpc_interp.errors import (
    ContextLengthError,
    DPCInterpError,
    NonFiniteError,
    OneOutcomeError,
    ShapeError,
    UnknownNameError,
    renamed_keywords,
    warn_renamed,
)


@renamed_keywords({"checkpoint": "gradient_checkpointing"})
def compute(x: int, *, gradient_checkpointing: bool = False) -> tuple[int, bool]:
    """Return the arguments."""
    return x, gradient_checkpointing


@pytest.mark.parametrize("error", [UnknownNameError, ShapeError, ContextLengthError, NonFiniteError])
def test_all_errors_are_value_errors_of_the_package(error: type[Exception]) -> None:
    assert issubclass(error, DPCInterpError)
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("error", [UnknownNameError("task", "poetry", ["story"]), OneOutcomeError("all are right")])
def test_errors_keep_their_message_on_the_way_from_another_process(error: DPCInterpError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, DPCInterpError)
    assert str(copy) == str(error)


def test_unknown_names_list_the_known_ones() -> None:
    assert str(UnknownNameError("task", "poetry", ["story", "rule"])) == "unknown task 'poetry'; known: story, rule"
    assert str(UnknownNameError("layer", 3, [])) == "unknown layer 3; known: "


def test_a_long_list_is_replaced_by_the_closest_names() -> None:
    known = [f"option_{k}" for k in range(40)] + ["gamma"]
    message = str(UnknownNameError("option", "gama", known))
    assert message.startswith("unknown option 'gama'; the closest known ones are gamma, ")
    assert len(message) < 120


def test_old_keywords_work_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="checkpoint= is deprecated .* use gradient_checkpointing="):
        assert compute(1, checkpoint=True) == (1, True)


def test_new_keywords_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute(1, gradient_checkpointing=True) == (1, True)
        assert compute(2) == (2, False)
    assert compute.__name__ == "compute"


def test_warning_names_both_names() -> None:
    with pytest.warns(DeprecationWarning, match="^old is deprecated and will be removed in the next release; use new$"):
        warn_renamed("old", "new")


def test_the_old_and_the_new_keyword_together_are_an_error() -> None:
    @renamed_keywords({"old": "new"})
    def double(new: int) -> int:
        return 2 * new

    with pytest.raises(DPCInterpError, match="old= is the old name of new="):
        double(old=1, new=2)
    with pytest.warns(DeprecationWarning, match="use new="):
        assert double(old=2) == 4
