"""Positions of the prompt, the question, the rationale, its steps and the answer in `P | Q | R | A`.

See docs/method.md, section 1. One line of the rationale is one step; a line break, with the blank lines after it,
belongs to the line that it ends. A text of one line is cut into sentences. The answer begins with the sentence that
states it (`answer_start`); a stop token belongs to no segment.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from dpc_interp.generation.transcript import Transcript
from dpc_interp.tasks.answers import answer_start

Span = tuple[int, int]
"""Half-open range of positions."""
LINE_END = re.compile(r"\n\s*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True)
class Segments:
    """Half-open ranges of positions in a sequence, counted from the first virtual token.

    Attributes:
        prompt, question, rationale, answer: the segments.
        steps: the rationale steps, which divide `rationale`.
        length: positions of the sequence, including the stop token.
    """

    prompt: Span
    question: Span
    rationale: Span
    answer: Span
    steps: tuple[Span, ...]
    length: int

    @property
    def late(self) -> Span:
        """The late half of the rationale, by tokens; the middle token of an odd number is late."""
        start, stop = self.rationale
        return start + (stop - start) // 2, stop

    @property
    def n_rationale_tokens(self) -> int:
        """Number of rationale tokens."""
        return self.rationale[1] - self.rationale[0]

    def spans(self) -> dict[str, Span]:
        """The four segments by name, in order."""
        return {
            "prompt": self.prompt,
            "question": self.question,
            "rationale": self.rationale,
            "answer": self.answer,
        }

    def step_of(self, position: int) -> int:
        """The step, counted from 0, that `position` of the rationale lies in."""
        return next(k for k, (start, stop) in enumerate(self.steps) if start <= position < stop)


def segment(transcript: Transcript, tokenizer: PreTrainedTokenizerBase, n_virtual: int) -> Segments:
    """Segment a transcript.

    Args:
        transcript: question and generated tokens.
        tokenizer: that decodes them.
        n_virtual: virtual tokens in front of the question.

    Returns:
        The segments; the rationale may be empty.
    """
    ids = transcript.generated_tokens.tolist()
    stopped = transcript.ends_with_stop or (bool(ids) and ids[-1] == tokenizer.eos_token_id)
    written = ids[:-1] if stopped else ids
    text = str(tokenizer.decode(written))
    rationale_text = text[: answer_start(text)]
    first = n_virtual + len(transcript.question_tokens)

    token_end = _token_ends(tokenizer, written, text)

    def position(character: int) -> int:
        """The position after the last token that ends at or before `character`."""
        return first + bisect_right(range(len(written)), character, key=token_end)

    rationale_stop = position(len(rationale_text))
    marks = [first, *(position(end) for end in step_ends(rationale_text)[:-1]), rationale_stop]
    return Segments(
        prompt=(0, n_virtual),
        question=(n_virtual, first),
        rationale=(first, rationale_stop),
        answer=(rationale_stop, first + len(written)),
        steps=tuple((start, stop) for start, stop in pairwise(marks) if start < stop),
        length=first + len(ids),
    )


def _token_ends(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> Callable[[int], int]:
    """Maps the index of a token to the character of `text` at which it ends."""
    pieces = {token: str(tokenizer.decode([token])) for token in set(ids)}
    if "".join(pieces[token] for token in ids) == text:
        return list(accumulate(len(pieces[token]) for token in ids)).__getitem__
    return cache(lambda k: _decoded_end(str(tokenizer.decode(ids[: k + 1])), text))


def _decoded_end(decoded: str, text: str) -> int:
    """The character of `text` at which its first tokens end, whose text is `decoded`.

    Where a character has several tokens, the first of them decode to replacement characters that `text` does not have;
    all of them end with the character. So the ends grow from token to token, as bisection needs it.
    """
    n_common = next((i for i, pair in enumerate(zip(decoded, text, strict=False)) if pair[0] != pair[1]), None)
    n_common = min(len(decoded), len(text)) if n_common is None else n_common
    return n_common + (len(decoded) > n_common)


def step_ends(text: str) -> list[int]:
    """The characters at which the steps of `text` end, in order; the last one is the end of the text."""
    body = text.rstrip()
    if "\n" in body:
        ends = [match.end() for match in LINE_END.finditer(body) if body[: match.start()].strip()]
    else:
        ends = [match.end() for match in SENTENCE_END.finditer(body)]
    return [*(end for end in ends if end < len(body)), len(text)]
