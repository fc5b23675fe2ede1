"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours. The prompt is read once for all rows that
share it, `pad | Q` behind it, then each step feeds one token; where it may not be shared, the first pass reads
`pad | P | Q`. Rows that have ended leave the batch. A draft of the answer is read with its question: what the model
agrees with is written, the rest is hidden from what follows.

A hook that acts by row, on a batch that is padded, read in pieces and left by rows that have ended, asks `now_read()`
where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.edges import without_edges
from dpc_interp.lm.hooked import CachedDecoding, Hook, HookedModel, tokenizer_of
from dpc_interp.lm.prefix import can_be_shared, read_prompt, sees_all
from dpc_interp.lm.soft_prompt import PLACEHOLDER, PromptEdit, edit_prompt, prompt_index, write_prompt

LOGITS = 2**27
"""Logits at once, at most, where those of all positions of drafts are made."""


@dataclass(frozen=True)
class Reading:
    """The batch in a forward pass of `decode`: positions count the padding, the cached tokens too.

    `rows` tells which row of the batch's first pass each row is; `starts` where it begins, its virtual tokens first;
    `written` where its question ends and what the model writes begins.
    """

    rows: Int[Tensor, " batch"]
    starts: Int[Tensor, " batch"]
    written: Int[Tensor, " batch"]

    def keep(self, rows: Bool[Tensor, " batch"]) -> Reading:
        """What is left when only `rows` go on."""
        return Reading(self.rows[rows], self.starts[rows], self.written[rows])


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
    stop = tokenizer_of(model).eos_token_id
    n_virtual = 0 if vectors is None else len(vectors)
    if drafts is None or not sees_all(model, n_virtual + max(map(len, questions)) + 2 * max_new_tokens):
        drafts = [question[:0] for question in questions]
    drafts = [draft[: 1 + int((draft != stop).long().cumprod(0).sum())][:max_new_tokens] for draft in drafts]
    whole = [torch.cat(pair) for pair in zip(questions, drafts, strict=True)]
    hidden = _hiding_hooks(model, plans, n_virtual)
    read, at_prompt, tokens, mask, starts = _laid_out(model, whole, vectors, plans, max_new_tokens)
    width = n_virtual + max(map(len, whole))
    begun = width - torch.tensor([len(draft) for draft in drafts])
    reading = Reading(torch.arange(len(whole)), starts, begun)
    with model.hooks(fwd_hooks=[*at_prompt, *hidden]), _reading(reading):
        written, following = _first_pass(model, read, tokens, mask, drafts)
    refused = torch.arange(width) >= (begun + torch.tensor([len(row) for row in written]))[:, None]
    if refused.any():
        read.forget(refused)
    with model.hooks(fwd_hooks=hidden):
        _write_on(model, read, reading, written, following, max_new_tokens)
    return [torch.tensor(row, dtype=torch.long) for row in written]


def _laid_out(
    model: HookedModel,
    rows: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
) -> tuple[CachedDecoding, list[Hook], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """The first pass: what has been read before it, its hooks at the prompt, tokens, mask, where each prompt starts.

    The prompt has been read where it may be shared; else it stands between the padding and each row.
    """
    if vectors is not None and can_be_shared(model, len(vectors) + max(map(len, rows)) + max_new_tokens):
        tokens, mask, padding = left_padded(rows, 0)
        return read_prompt(model, vectors, len(rows), plans), [], tokens, mask, torch.zeros_like(padding)
    tokens, mask, starts = left_padded(rows, 0 if vectors is None else len(vectors))
    return CachedDecoding(model, len(rows)), _prompt_hooks(vectors, plans, starts), tokens, mask, starts


def _first_pass(
    model: HookedModel,
    read: CachedDecoding,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    drafts: Sequence[Int[Tensor, " _"]],
) -> tuple[list[list[int]], Int[Tensor, " batch"]]:
    """Read questions and drafts: what of each draft greedy decoding writes, and the token it writes then."""
    n_drafted = torch.tensor([len(draft) for draft in drafts])
    n_last = 1 + int(n_drafted.max())
    at_end: list[Tensor] = []

    def keep_end(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch 1 d_model"]:
        at_end[:] = [resid[:, -n_last:]]
        return resid[:, -1:]

    with model.hooks(fwd_hooks=[("unembed.hook_in", keep_end)]):
        logits = read(tokens, mask)
    if not torch.isfinite(logits[:, -1]).all():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    if n_last == 1:
        return [[] for _ in drafts], logits[:, -1].argmax(-1).cpu()
    told = torch.arange(n_last) >= n_last - 1 - n_drafted[:, None]
    parts = at_end[0][told.to(logits.device)].split(max(1, LOGITS // model.cfg.d_vocab))
    own = torch.cat([model.unembed(part[None])[0].argmax(-1) for part in parts]).cpu().split((n_drafted + 1).tolist())
    agreed = [int((row[:-1] == draft).long().cumprod(0).sum()) for row, draft in zip(own, drafts, strict=True)]
    written = [draft[:n].tolist() for draft, n in zip(drafts, agreed, strict=True)]
    return written, torch.stack([row[n] for row, n in zip(own, agreed, strict=True)])


def _write_on(
    model: HookedModel,
    read: CachedDecoding,
    reading: Reading,
    written: list[list[int]],
    following: Int[Tensor, " batch"],
    max_new_tokens: int,
) -> None:
    """Write `following` and what comes behind it, a token in each pass, to the rows that have not ended."""
    stop = tokenizer_of(model).eos_token_id

    def ended(row: list[int]) -> bool:
        return len(row) >= max_new_tokens or row[-1:] == [stop]

    while True:
        for i, token in zip(reading.rows.tolist(), following.tolist(), strict=True):
            if not ended(written[i]):  # a draft may have ended it
                written[i].append(token)
        going = torch.tensor([not ended(written[i]) for i in reading.rows.tolist()])
        if not going.any():
            return
        if not going.all():
            read.select(going.nonzero()[:, 0])
            reading, following = reading.keep(going), following[going]
        with _reading(reading):
            following = read(following[:, None])[:, -1].argmax(-1).cpu()


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
    """Hooks at the patterns of the layers where a plan hides virtual tokens from what is written."""
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
        written = torch.arange(n_read - n_new, n_read) >= batch.written[:, None]
        return without_edges(pattern, (written[:, :, None] & sources[:, None]).to(pattern.device))

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
