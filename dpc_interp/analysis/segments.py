"""Where the prompt, the question, the rationale, its steps and the answer stand in `P | Q | R | A` (METHOD 1).

One line of the rationale is one step; a line break, with blank lines behind it, belongs to the line it ends. A text of
one line is cut into sentences. The answer is the last line that carries an answer marker; a stop token belongs to no
segment.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from dpc_interp.lm.generation import Transcript
from dpc_interp.tasks.answers import answer_start

Span = tuple[int, int]
LINE_END = re.compile(r"\n\s*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True)
class Segments:
    """Half-open ranges of positions in the sequence; `steps` divide `rationale`; `length` counts the stop token."""

    prompt: Span
    question: Span
    rationale: Span
    answer: Span
    steps: tuple[Span, ...]
    length: int

    def borders(self) -> dict[str, Span]:
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
    """The segments of a transcript behind `n_virtual` virtual tokens. The rationale may come out empty."""
    ids = transcript.generated_tokens.tolist()
    stopped = bool(ids) and ids[-1] == tokenizer.eos_token_id
    written = ids[:-1] if stopped else ids
    text = str(tokenizer.decode(written))
    rationale_text = text[: answer_start(text)]
    first = n_virtual + len(transcript.question_tokens)

    ends = _ends(tokenizer, written, text)

    def position(character: int) -> int:
        """The position after the last token that ends at or before `character`."""
        return first + bisect_right(range(len(written)), character, key=ends)

    rationale_stop = position(len(rationale_text))
    marks = [first, *(position(cut) for cut in step_cuts(rationale_text)[:-1]), rationale_stop]
    steps = tuple((a, b) for a, b in pairwise(marks) if a < b)
    return Segments(
        prompt=(0, n_virtual),
        question=(n_virtual, first),
        rationale=(first, rationale_stop),
        answer=(rationale_stop, first + len(written)),
        steps=steps,
        length=first + len(ids),
    )


def _ends(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> Callable[[int], int]:
    """The character of `text` at which a token ends, by its place in `ids`."""
    pieces = {token: str(tokenizer.decode([token])) for token in set(ids)}
    if "".join(pieces[token] for token in ids) == text:
        return list(accumulate(len(pieces[token]) for token in ids)).__getitem__
    # a character of several tokens, or a tokenizer that reads a token by its neighbours
    return cache(lambda k: len(tokenizer.decode(ids[: k + 1])))


def step_cuts(text: str) -> list[int]:
    """The characters at which the steps of `text` end, in order; the last one is its end."""
    body = text.rstrip()
    if "\n" in body:
        cuts = [match.end() for match in LINE_END.finditer(body) if body[: match.start()].strip()]
    else:
        cuts = [match.end() for match in SENTENCE_END.finditer(body)]
    inner = [cut for cut in cuts if cut < len(body)]
    return [*inner, len(text)]
