"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours. The prompt is read once for all rows that
share it, `pad | Q` behind it, then each pass feeds the token last written; where it may not be shared, the first pass
reads `pad | P | Q`. Rows that have ended leave the batch. Of a draft of the answer some tokens are read ahead.

A hook that acts by row, on a batch that is padded, read in pieces and left by rows that have ended, asks `now_read()`
where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.drafts import AHEAD, ahead
from dpc_interp.lm.edges import without_edges
from dpc_interp.lm.hooked import CachedDecoding, Hook, HookedModel, attention_span, tokenizer_of
from dpc_interp.lm.prefix import can_be_shared, last, read_prompt
from dpc_interp.lm.soft_prompt import PLACEHOLDER, PromptEdit, edit_prompt, prompt_index, write_prompt


@dataclass(frozen=True)
class Reading:
    """The batch in a forward pass of `decode`: positions count the padding, the cached tokens too.

    `rows` tells which row of the batch's first pass, which reads the questions, each row is; `starts` where it begins,
    its virtual tokens first.
    """

    rows: Int[Tensor, " batch"]
    starts: Int[Tensor, " batch"]

    def keep(self, rows: Bool[Tensor, " batch"]) -> Reading:
        """What is left when only `rows` go on."""
        return Reading(self.rows[rows], self.starts[rows])


_READING: ContextVar[Reading | None] = ContextVar("reading", default=None)


def now_read() -> Reading | None:
    """The batch that decoding is reading; None: the model is called by other code."""
    return _READING.get()


@contextmanager
def _reading(batch: Reading) -> Iterator[None]:
    token = _READING.set(batch)
    try:
        yield
    finally:
        _READING.reset(token)


@runtime_checkable
class HidesTokens(Protocol):
    """A plan that takes edges from virtual tokens to what is written out of the attention."""

    def hidden(self, n_layers: int, n_virtual: int) -> Bool[Tensor, "layer n_virtual"]:
        """True where a virtual token is hidden."""


def decode(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
    drafts: Sequence[Int[Tensor, " _"]] | None = None,
) -> list[Int[Tensor, " _"]]:
    """Decode one batch; a row ends with its stop token or with `max_new_tokens`."""
    n_virtual = 0 if vectors is None else len(vectors)
    n_read = n_virtual + max(map(len, questions))
    read, at_prompt, tokens, mask, starts = _laid_out(model, questions, vectors, plans, n_read + max_new_tokens)
    reading = Reading(torch.arange(len(questions)), starts)
    with model.hooks(fwd_hooks=[*at_prompt, ("unembed.hook_in", last)]), _reading(reading):
        logits = read(tokens, mask)[:, -1]
    if not torch.isfinite(logits).all():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    told = [[] for _ in questions] if drafts is None else [draft.tolist() for draft in drafts]
    with model.hooks(fwd_hooks=_hiding_hooks(model, plans, n_virtual)):
        written = _write(model, read, reading, logits.argmax(-1).tolist(), told, n_read, max_new_tokens)
    return [torch.tensor(row, dtype=torch.long) for row in written]


def _laid_out(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    n_positions: int,
) -> tuple[CachedDecoding, list[Hook], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """The first pass: what has been read before it, its hooks at the prompt, tokens, mask, where each prompt starts.

    The prompt has been read where rows of `n_positions` may share it; else it stands between padding and question.
    """
    if vectors is not None and can_be_shared(model, n_positions):
        tokens, mask, padding = left_padded(questions, 0)
        return read_prompt(model, vectors, len(questions), plans), [], tokens, mask, torch.zeros_like(padding)
    tokens, mask, starts = left_padded(questions, 0 if vectors is None else len(vectors))
    return CachedDecoding(model, len(questions)), _prompt_hooks(vectors, plans, starts), tokens, mask, starts


def _write(
    model: HookedModel,
    read: CachedDecoding,
    reading: Reading,
    following: list[int],
    drafts: list[list[int]],
    n_read: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """Write `following` and what comes behind it.

    Each pass reads the token last written and some ahead from the row's draft: those that the model would write are
    written, too, the others hidden. Hidden ones count in what a layer looks back over, so they must leave it room.
    """
    stop, span = tokenizer_of(model).eos_token_id, attention_span(model)
    written: list[list[int]] = [[] for _ in drafts]
    drafts = [draft[: draft.index(stop) + 1] if stop in draft else draft for draft in drafts]

    def ended(row: list[int]) -> bool:
        return len(row) >= max_new_tokens or row[-1:] == [stop]

    while True:
        for i, token in zip(reading.rows.tolist(), following, strict=True):
            if not ended(written[i]):  # a draft may have ended it
                written[i].append(token)
        going = torch.tensor([not ended(written[i]) for i in reading.rows.tolist()])
        if not going.any():
            return written
        if not going.all():
            read.select(going.nonzero()[:, 0])
            reading = reading.keep(going)
        rows = reading.rows.tolist()
        to_come = [max_new_tokens - len(written[i]) for i in rows]
        room = max(0, span - n_read - 1 - max(to_come))
        fed = [
            [written[i][-1], *ahead(drafts[i], written[i], min(AHEAD, left, room))]
            for i, left in zip(rows, to_come, strict=True)
        ]
        tokens, mask = right_padded(fed)
        with _reading(reading):
            own = read(tokens, mask).argmax(-1).tolist()
        agreed = [sum(takewhile(bool, map(eq, row[1:], told))) for row, told in zip(fed, own, strict=True)]
        following = [told[n] for told, n in zip(own, agreed, strict=True)]
        for i, row, n in zip(rows, fed, agreed, strict=True):
            written[i] += row[1 : 1 + n]
        if min(agreed) + 1 < tokens.shape[1]:
            read.forget(torch.arange(tokens.shape[1]) > torch.tensor(agreed)[:, None])
        n_read += tokens.shape[1]


def _prompt_hooks(
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    starts: Int[Tensor, " batch"],
) -> list[Hook]:
    if vectors is None:
        return []
    hooks: list[Hook] = [("hook_embed", write_prompt(vectors, starts))]
    if plans is not None:
        hooks.append(("hook_embed", edit_prompt(plans, vectors.shape[0], starts)))
    return hooks


def _hiding_hooks(model: HookedModel, plans: Sequence[PromptEdit] | None, n_virtual: int) -> list[Hook]:
    """Hooks, for the passes behind the questions, at the patterns of the layers where a plan hides virtual tokens."""
    shape = model.cfg.n_layers, n_virtual
    by_row: list[object] = list(plans or [])
    if not any(isinstance(plan, HidesTokens) for plan in by_row):
        return []
    nothing = torch.zeros(shape, dtype=torch.bool)
    hidden = torch.stack([plan.hidden(*shape) if isinstance(plan, HidesTokens) else nothing for plan in by_row])

    def hide(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Float[Tensor, "batch head dest src"]:
        batch = now_read()
        if batch is None:
            return pattern
        _, _, n_new, n_read = pattern.shape
        rows, columns = prompt_index(len(batch.rows), n_virtual, batch.starts)
        sources = torch.zeros(len(batch.rows), n_read, dtype=torch.bool)
        sources[rows, columns] = hidden[batch.rows, hook.layer()]
        return without_edges(pattern, sources[:, None].expand(-1, n_new, -1).to(pattern.device))

    layers = hidden.any(-1).any(0).nonzero()[:, 0].tolist()
    return [(f"blocks.{layer}.attn.hook_pattern", hide) for layer in layers]


def left_padded(
    questions: Sequence[Int[Tensor, " _"]], n_virtual: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """A batch that ends together: tokens with placeholders before each question, mask (0: padding), prompt starts."""
    width = n_virtual + max(len(q) for q in questions)
    starts = torch.tensor([width - n_virtual - len(q) for q in questions])
    tokens = torch.full((len(questions), width), PLACEHOLDER)
    for row, question in enumerate(questions):
        tokens[row, width - len(question) :] = question
    return tokens, (torch.arange(width) >= starts[:, None]).long(), starts


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """A batch that begins together: tokens, mask (0: padding)."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[PLACEHOLDER] * (width - len(row))] for row in rows])
    return tokens, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
