"""The errors a user can meet. Each message is one line that names the mend."""

from __future__ import annotations

from collections.abc import Sequence


class DPCInterpError(ValueError):
    """Input that cannot be worked with; the message says what to do."""


class UnknownNameError(DPCInterpError):
    """A name that is not known, with those that are."""

    def __init__(self, kind: str, name: object, known: Sequence[str]):
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(known)}")


class ShapeError(DPCInterpError):
    """A tensor whose shape does not fit the model."""


class ContextLengthError(DPCInterpError):
    """A sequence longer than the model's context."""


class NonFiniteError(DPCInterpError):
    """NaN or infinity where a number is needed."""
