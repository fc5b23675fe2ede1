"""Positions of the prompt, the question, the rationale, its steps and the answer in `P | Q | R | A`.

See docs/method.md, section 1. One line of the rationale is one step; a line break, with the blank lines after it,
belongs to the line that it ends. A text of one line is cut into sentences. The answer begins where `answer_start` in
`tasks/answers.py` finds it stated, which may be within a line: `7 * 2 = 14. #### 14`. It ends where the model goes on
with a question of its own, if it does. A token that holds the border of two segments belongs to the second one; a stop
token belongs to no segment, and neither does such a question. White space in front of the answer is no rationale.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby, pairwise

from transformers import PreTrainedTokenizerBase

from dpc_interp.generation.steps import step_ends
from dpc_interp.generation.transcript import Transcript
from dpc_interp.tasks.answers import answer_start
from dpc_interp.tasks.statements import follow_on_start

Span = tuple[int, int]
"""Half-open range of positions."""
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
"""Tokens of the byte fallback of SentencePiece (LLaMA-2, Mistral), which also has the line break as such a token."""


@dataclass(frozen=True)
class Segments:
    """Half-open ranges of positions in a sequence, counted from the first virtual token.

    Attributes:
        prompt, question, rationale, answer: the segments.
        steps: the rationale steps, which divide `rationale`.
        length: positions of the sequence, including the stop token and a question after the answer.
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
    if not rationale_text.strip():
        rationale_text = ""
    first = n_virtual + len(transcript.question_tokens)

    token_end = _token_ends(tokenizer, written, text)

    def position(character: int) -> int:
        """The position after the last token that ends at or before `character`."""
        return first + bisect_right(range(len(written)), character, key=token_end)

    rationale_stop = position(len(rationale_text))
    follow_on = follow_on_start(text)
    marks = [first, *(position(end) for end in step_ends(rationale_text)[:-1]), rationale_stop]
    return Segments(
        prompt=(0, n_virtual),
        question=(n_virtual, first),
        rationale=(first, rationale_stop),
        answer=(rationale_stop, first + len(written) if follow_on is None else position(follow_on)),
        steps=tuple((start, stop) for start, stop in pairwise(marks) if start < stop),
        length=first + len(ids),
    )


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each token; tokenizers such as that of Llama-2 decode its leading space only after another token.

    Args:
        tokenizer: that decodes them.
        ids: consecutive tokens.
    """

    @cache
    def decoded(*tokens: int) -> str:
        return str(tokenizer.decode(list(tokens)))

    @cache
    def after(previous: int, token: int) -> str:
        before, both = decoded(previous), decoded(previous, token)
        # parts of one character are decoded alone
        return both[len(before) :] if both.startswith(before) and len(both) > len(before) else decoded(token)

    return [decoded(token) for token in ids[:1]] + [after(previous, token) for previous, token in pairwise(ids)]


def _token_ends(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> Callable[[int], int]:
    """Maps the index of a token to the character of `text` at which it ends.

    All tokens of a character of several tokens end where the character does, so the ends never decrease.
    """
    pieces = {token: str(tokenizer.decode([token])) for token in set(ids)}
    if "".join(pieces[token] for token in ids) == text:
        return list(accumulate(len(pieces[token]) for token in ids)).__getitem__

    # A character of several tokens, or a tokenizer that decodes a token by its neighbours
    @cache
    def prefix_end(k: int) -> int:
        """The first tokens agree with the text up to here; an unfinished character, if any, is added."""
        decoded = str(tokenizer.decode(ids[: k + 1])) if k >= 0 else ""
        n_agreeing = next((i for i, (a, b) in enumerate(zip(decoded, text, strict=False)) if a != b), len(decoded))
        return min(n_agreeing + (n_agreeing < len(decoded)), len(text))

    tokens = tokenizer.convert_ids_to_tokens(ids)
    is_byte = [BYTE_TOKEN.fullmatch(str(token)) is not None for token in tokens]
    ends_of_bytes: dict[int, int] = {}
    for is_run, run in groupby(range(len(ids)), key=is_byte.__getitem__):
        if is_run:
            positions = list(run)
            first, last = positions[0], positions[-1]
            start, stop = prefix_end(first - 1), prefix_end(last)
            ends = _byte_ends(text[start:stop], last - first + 1)
            ends_of_bytes |= {first + i: start + end for i, end in enumerate(ends)}
    return lambda k: ends_of_bytes[k] if k in ends_of_bytes else prefix_end(k)


def _byte_ends(characters: str, n_tokens: int) -> list[int]:
    """The characters at which the tokens of a byte fallback end; a run that lacks bytes has one U+FFFD a token."""
    ends = [i + 1 for i, character in enumerate(characters) for _ in character.encode()]
    if len(ends) == n_tokens:
        return ends
    return [min(i + 1, len(characters)) for i in range(n_tokens - 1)] + [len(characters)]
