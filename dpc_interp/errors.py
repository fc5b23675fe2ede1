"""The errors and deprecation warnings that users see. Each message is one line that says how to fix the problem."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

Params = ParamSpec("Params")
Return = TypeVar("Return")
INSIDE = (str(Path(__file__).parent), contextlib.__file__)
"""Where the frames of a call of this package are, those of context managers used as decorators among them."""
MAX_LISTED = 200
"""Characters of a list of known names, at most; a longer one does not fit a one-line message."""


class DPCInterpError(ValueError):
    """Invalid input; the message says what to do."""


class UnknownNameError(DPCInterpError):
    """An unknown name; the message lists the known ones, or the closest three where a list would be too long."""

    def __init__(self, kind: str, name: object, known: Sequence[str]):
        names = f"known: {', '.join(known)}"
        if len(names) > MAX_LISTED:
            names = f"the closest known ones are {', '.join(get_close_matches(str(name), known, n=3, cutoff=0.0))}"
        super().__init__(f"unknown {kind} {name!r}; {names}")

    def __reduce__(self) -> tuple[type[DPCInterpError], tuple[object, ...]]:
        """Pickle the message, which is all that another process needs."""
        return DPCInterpError, self.args


class ShapeError(DPCInterpError):
    """A tensor whose shape does not fit the model."""


class ContextLengthError(DPCInterpError):
    """A sequence longer than the model's context."""


class NonFiniteError(DPCInterpError):
    """NaN or infinity where a number is needed."""


class OneOutcomeError(DPCInterpError):
    """Validation answers that are all right or all wrong, on which no trigger can be calibrated."""


def warn_renamed(old: str, new: str) -> None:
    """Warn that `old` works for one more release and is now called `new`."""
    warn_user(f"{old} is deprecated and will be removed in the next release; use {new}", DeprecationWarning)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside the package that led here, through however many decorators and calls.

    Args:
        message: one line that says what to do.
        category: class of the warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def renamed_keywords(renamed: Mapping[str, str]) -> Callable[[Callable[Params, Return]], Callable[Params, Return]]:
    """Decorate a function so that old keywords (the keys) still work, with a warning that names the new ones."""

    def decorate(function: Callable[Params, Return]) -> Callable[Params, Return]:
        @wraps(function)
        def call(*args: Params.args, **kwargs: Params.kwargs) -> Return:
            for old, new in renamed.items():
                if old in kwargs:
                    if new in kwargs:
                        raise DPCInterpError(f"{old}= is the old name of {new}=; give only {new}=")
                    warn_renamed(f"{old}=", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
