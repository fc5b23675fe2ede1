"""Where decoding stops: end tokens, stop strings, and the length at which a text is cut off.

A text ends with any of the model's end tokens (`end_tokens`, the rule of Hugging Face's `generate`). It also ends
before a stop string: models that go on after their answer with a question of their own would otherwise have that
question analysed as rationale. The stop string itself is not part of the result, and neither is a token that holds its
beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpc_interp.errors import ContextLengthError, DPCInterpError, warn_user
from dpc_interp.generation.transcript import Transcript
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.tasks.answers import STOP_STRINGS
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import SYNTHETIC

DEFAULT_LENGTHS = {**dict.fromkeys(SYNTHETIC, 96), "gsm8k": 512, "gsm_symbolic": 512, "aqua": 512}
"""Task -> tokens of its longest usual answer."""
DEFAULT_LENGTH = 1024
"""Tokens for all other tasks, files and rows among them."""
TAIL = 48
"""Tokens of the end of a text in which a stop string is looked for after each pass."""


class UnfinishedWarning(UserWarning):
    """Texts were cut off at `max_new_tokens`."""


class StopRule:
    """When a row of a batch ends.

    Args:
        model: whose tokens are decoded.
        max_new_tokens: the most tokens of a row.
        strings: stop strings; empty: end tokens only.

    Raises:
        DPCInterpError: an empty stop string, or a model for which nobody names an end token.
    """

    def __init__(self, model: HookedModel, max_new_tokens: int, strings: Sequence[str] = STOP_STRINGS):
        check_stop_strings(strings)
        self.end_tokens = frozenset(end_tokens(model))
        self._tokenizer, self._max_new_tokens, self._strings = tokenizer_of(model), max_new_tokens, tuple(strings)
        self._may_complete: dict[int, bool] = {}

    def ended(self, row: Sequence[int], n_new: int = 1) -> bool:
        """Whether a row has an end token, a stop string or its full length.

        Args:
            row: the generated tokens.
            n_new: how many of them are new since the last call.
        """
        if len(row) >= self._max_new_tokens or (row and row[-1] in self.end_tokens):
            return True
        if not any(map(self._completes, row[len(row) - n_new :])):  # a decoded tail for each token would cost too much
            return False
        return self._first_stop(self._decode(row[-TAIL - n_new :])) is not None

    def cut(self, row: Sequence[int]) -> list[int]:
        """The tokens of a row before its first stop string.

        Args:
            row: the generated tokens.

        Returns:
            All of them where it has none.
        """
        start = self._first_stop(self._decode(row)) if any(map(self._completes, row)) else None
        if start is None:
            return list(row)
        # the longest beginning whose text ends at or before the stop string
        low, high = 0, len(row)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(self._decode(row[:middle])) <= start else (low, middle - 1)
        return list(row[:low])

    def _completes(self, token: int) -> bool:
        """Whether a stop string may end within this token: it begins with an ending of one, or holds a whole one.

        A part of a character is decoded as U+FFFD, and may complete any string that ends in such a character.
        """
        if token not in self._may_complete:
            piece = self._decode([token])
            self._may_complete[token] = any(
                string in piece
                or any(piece.startswith(string[k:]) for k in range(1, len(string)))
                or ("\ufffd" in piece and not string[-1].isascii())
                for string in self._strings
            )
        return self._may_complete[token]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def _first_stop(self, text: str) -> int | None:
        return min((start for string in self._strings if (start := text.find(string)) >= 0), default=None)


def check_stop_strings(strings: Sequence[str]) -> None:
    """Raise `DPCInterpError` unless `strings` is a list of texts, none of them empty."""
    if isinstance(strings, str):
        raise DPCInterpError(f"stop_strings is the text {strings[:40]!r}; give a list of texts")
    if not all(strings):
        raise DPCInterpError("stop_strings holds an empty text, at which every answer would end; give texts, or ()")


def check_max_new_tokens(max_new_tokens: int | None) -> None:
    """Raise `DPCInterpError` for a length below 1; None stands for the default of the task."""
    if max_new_tokens is not None and max_new_tokens < 1:
        raise DPCInterpError(f"max_new_tokens is {max_new_tokens}; give at least 1")


def resolve_max_new_tokens(
    model: HookedModel, problems: Sequence[Problem], n_read: int, max_new_tokens: int | None
) -> int:
    """The length at which texts are cut off.

    Args:
        model: its context limits the default.
        problems: their tasks decide the default.
        n_read: positions that the longest question needs, virtual tokens included.
        max_new_tokens: a length that was given; None: the default of the tasks, or what the context leaves.

    Returns:
        At least 1.

    Raises:
        ContextLengthError: the context has no room for a single new token.
    """
    check_max_new_tokens(max_new_tokens)
    if max_new_tokens is not None:
        return max_new_tokens
    room = model.cfg.n_ctx - n_read
    if room < 1:
        raise ContextLengthError(
            f"{n_read + 1} positions exceed the model's context of {model.cfg.n_ctx}; shorten the input"
        )
    tasks = {problem.task for problem in problems}
    return min(room, max((DEFAULT_LENGTHS.get(task, DEFAULT_LENGTH) for task in tasks), default=DEFAULT_LENGTH))


def warn_unfinished(runs: Sequence[Transcript], max_new_tokens: int) -> None:
    """Warn with the share of texts that were cut off.

    Args:
        runs: transcripts of one call.
        max_new_tokens: the length at which they were cut off.
    """
    n_cut = sum(not run.finished for run in runs)
    if n_cut:
        warn_user(
            f"{n_cut} of {len(runs)} texts ({n_cut / len(runs):.0%}) were cut off at max_new_tokens={max_new_tokens} "
            "and may lack their answer; raise max_new_tokens",
            UnfinishedWarning,
        )
