"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours: one forward over `pad | P | Q` writes the
prompt into the cache through its hook, then each step feeds one token. Rows that have ended leave the batch. Where a
draft of the answer is at hand, one pass over it tells how far the model agrees, and decoding begins there.

A hook that acts by row, on a batch that is padded, read in pieces and left by rows that have ended, asks `now_read()`
where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.edges import without_edges
from dpc_interp.lm.hooked import CachedDecoding, HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import PLACEHOLDER, PromptEdit, edit_prompt, logits_behind, prompt_index, write_prompt

LOGITS = 2**27
"""Logits in one pass over drafts, at most: it makes those of all their positions."""
Hook = tuple[str | Callable[..., Any], Callable[..., Any]]


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
    max_new_tokens: int | Sequence[int],
    n_begun: Sequence[int] | None = None,
) -> list[Int[Tensor, " _"]]:
    """Decode one batch: left padding first, then the prompt, then the question.

    `max_new_tokens` is one for all or one a row; a row ends there or with its stop token. `n_begun` tells how many
    tokens at the end of each question are not asked but already written.
    """
    n_virtual = 0 if vectors is None else vectors.shape[0]
    tokens, mask, starts = left_padded(questions, n_virtual)
    begun = torch.zeros(len(questions), dtype=torch.long) if n_begun is None else torch.tensor(n_begun)
    reading = Reading(torch.arange(len(questions)), starts, tokens.shape[1] - begun)
    with model.hooks(fwd_hooks=_hiding_hooks(model, plans, n_virtual)):
        return _decode(model, reading, tokens, mask, vectors, plans, max_new_tokens)


def _decode(
    model: HookedModel,
    reading: Reading,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int | Sequence[int],
) -> list[Int[Tensor, " _"]]:
    """The first pass, which fills the cache, and one pass a token."""
    read = CachedDecoding(model, len(tokens))
    hooks: list[Hook] = [*_prompt_hooks(vectors, plans, reading.starts), ("unembed.hook_in", _last)]
    with model.hooks(fwd_hooks=hooks), _reading(reading):
        logits = read(tokens, mask)
    if not torch.isfinite(logits[:, -1]).all():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    stop = tokenizer_of(model).eos_token_id
    limits = torch.as_tensor(max_new_tokens).expand(len(tokens))
    written: list[list[int]] = [[] for _ in tokens]
    while True:
        last = logits[:, -1].argmax(-1).cpu()
        for i, token in zip(reading.rows.tolist(), last.tolist(), strict=True):
            written[i].append(token)
        done = torch.tensor([len(written[i]) for i in reading.rows.tolist()]) >= limits[reading.rows]
        going = (last != stop) & ~done
        if not going.any():
            return [torch.tensor(row) for row in written]
        if not going.all():
            read.keep(going.to(logits.device))
            reading, last = reading.keep(going), last[going]
        with _reading(reading):
            logits = read(last[:, None])


def decode_drafted(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    drafts: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
) -> list[Int[Tensor, " _"]]:
    """What `decode` writes, its beginning taken from each draft as far as the model agrees with it."""
    stop = tokenizer_of(model).eos_token_id
    rows: list[Int[Tensor, " _"]] = []
    longest = 1 + max((len(draft) for draft in drafts), default=0)
    at_once = max(1, LOGITS // (longest * model.cfg.d_vocab))
    for start in range(0, len(questions), at_once):
        part = slice(start, start + at_once)
        begun = [draft[:max_new_tokens] for draft in drafts[part]]
        agreed = _agreement(model, questions[part], begun, vectors, None if plans is None else plans[part])
        rows += [draft[:n] for draft, n in zip(begun, agreed, strict=True)]
    left = [max_new_tokens - len(row) if not len(row) or row[-1] != stop else 0 for row in rows]
    unfinished = [i for i, n in enumerate(left) if n]
    if unfinished:
        rest = decode(
            model,
            [torch.cat([questions[i], rows[i]]) for i in unfinished],
            vectors,
            None if plans is None else [plans[i] for i in unfinished],
            [left[i] for i in unfinished],
            [len(rows[i]) for i in unfinished],
        )
        for i, more in zip(unfinished, rest, strict=True):
            rows[i] = torch.cat([rows[i], more])
    return rows


def _agreement(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    drafts: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
) -> list[int]:
    """How many tokens of each draft greedy decoding would write, from one pass over question and draft."""
    n_virtual = 0 if vectors is None else vectors.shape[0]
    whole = [torch.cat([question, draft]) for question, draft in zip(questions, drafts, strict=True)]
    n_asked = torch.tensor([n_virtual + len(question) for question in questions])
    behind = n_asked[:, None] - 1 + torch.arange(max(len(draft) for draft in drafts))
    behind = behind.clamp(max=n_virtual + max(len(row) for row in whole) - 1).to(model.cfg.device)

    def needed(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch drafted d_model"]:
        return resid.gather(1, behind[..., None].expand(-1, -1, resid.shape[-1]))

    reading = Reading(torch.arange(len(whole)), torch.zeros_like(n_asked), n_asked)
    hooks: list[Hook] = [
        *_prompt_hooks(vectors, plans),
        *_hiding_hooks(model, plans, n_virtual),
        ("unembed.hook_in", needed),
    ]
    with model.hooks(fwd_hooks=hooks), _reading(reading):
        logits = logits_behind(model, torch.nn.utils.rnn.pad_sequence(whole, batch_first=True), n_virtual)
    own = logits.argmax(-1).cpu()
    same = [row[: len(draft)] == draft for row, draft in zip(own, drafts, strict=True)]
    return [int(agrees.long().cumprod(0).sum()) for agrees in same]


def _last(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch 1 d_model"]:
    return resid[:, -1:]


def _prompt_hooks(
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    starts: Int[Tensor, " batch"] | None = None,
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
