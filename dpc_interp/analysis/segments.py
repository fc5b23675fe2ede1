"""Where the prompt, the question, the rationale, its steps and the answer stand in `P | Q | R | A` (METHOD 1).

One line of the rationale is one step; a line break belongs to the line it ends. A text of one line is cut into sentences.
The answer is the last line that carries an answer marker; a stop token belongs to no segment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from dpc_interp.lm.generation import Transcript
from dpc_interp.tasks.answers import answer_start

Span = tuple[int, int]
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True)
class Segments:
    """Half-open position ranges in the analysed sequence; `steps` divide `rationale`; `length` counts the stop token too."""

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
    ends = _character_ends(tokenizer, written)
    text = tokenizer.decode(written)
    first = n_virtual + len(transcript.question_tokens)
    rationale_stop = first + _tokens_before(ends, answer_start(text))
    cuts = step_cuts(text[: answer_start(text)])
    marks = [first, *(first + _tokens_before(ends, cut) for cut in cuts)]
    marks[-1] = rationale_stop
    steps = tuple((a, b) for a, b in zip(marks, marks[1:], strict=False) if a < b)
    return Segments(
        prompt=(0, n_virtual),
        question=(n_virtual, first),
        rationale=(first, rationale_stop),
        answer=(rationale_stop, first + len(written)),
        steps=steps,
        length=first + len(ids),
    )


def step_cuts(text: str) -> list[int]:
    """The characters at which the steps of `text` end, in order; the last one is its end."""
    body = text.rstrip()
    if "\n" in body:
        cuts = [i + 1 for i, character in enumerate(text) if character == "\n" and text[:i].strip()]
    else:
        cuts = [match.end() for match in SENTENCE_END.finditer(body)]
    inner = [cut for cut in cuts if cut < len(body)]
    return [*inner, len(text)]


def _character_ends(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """The number of characters that the first 1, 2, ... tokens decode to."""
    return [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]


def _tokens_before(ends: list[int], character: int) -> int:
    """How many tokens end at or before `character`."""
    return sum(end <= character for end in ends)
