"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours: one forward over `pad | P | Q` writes the
prompt into the cache through its hook, then each step feeds one token. Rows that have ended leave the batch. Where a
draft of the answer is at hand, one pass over it tells how far the model agrees, and decoding begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.hooked import CachedDecoding, HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import PLACEHOLDER, PromptEdit, edit_prompt, logits_behind, write_prompt

DRAFTS = 16
"""Drafts in one pass: it makes logits of all their positions."""


def decode(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int | Sequence[int],
) -> list[Int[Tensor, " _"]]:
    """Decode one batch: left padding first, then the prompt, then the question.

    `max_new_tokens` is one for all or one a row; a row ends there or with its stop token.
    """
    n_virtual = 0 if vectors is None else vectors.shape[0]
    tokens, mask, starts = left_padded(questions, n_virtual)
    read = CachedDecoding(model, len(questions))
    with model.hooks(fwd_hooks=_prompt_hooks(vectors, plans, starts)):
        logits = read(tokens, mask)
    if not torch.isfinite(logits[:, -1]).all():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    stop = tokenizer_of(model).eos_token_id
    limits = torch.as_tensor(max_new_tokens).expand(len(questions))
    written: list[list[int]] = [[] for _ in questions]
    alive = torch.arange(len(questions))
    while True:
        last = logits[:, -1].argmax(-1).cpu()
        for i, token in zip(alive.tolist(), last.tolist(), strict=True):
            written[i].append(token)
        done = torch.tensor([len(written[i]) for i in alive.tolist()]) >= limits[alive]
        going = (last != stop) & ~done
        if not going.any():
            return [torch.tensor(row) for row in written]
        if not going.all():
            read.keep(going.to(logits.device))
            alive, last = alive[going], last[going]
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
    for start in range(0, len(questions), DRAFTS):
        part = slice(start, start + DRAFTS)
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
    with model.hooks(fwd_hooks=_prompt_hooks(vectors, plans)):
        logits = logits_behind(model, torch.nn.utils.rnn.pad_sequence(whole, batch_first=True), n_virtual)
    own = logits[:, n_virtual:].argmax(-1).cpu()
    agreed = []
    for row, question, draft in zip(own, questions, drafts, strict=True):
        same = row[len(question) - 1 : len(question) - 1 + len(draft)] == draft
        agreed.append(int(same.long().cumprod(0).sum()))
    return agreed


def _prompt_hooks(
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    starts: Int[Tensor, " batch"] | None = None,
) -> list[tuple[str | Callable[..., Any], Callable[..., Any]]]:
    if vectors is None:
        return []
    hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = [("hook_embed", write_prompt(vectors, starts))]
    if plans is not None:
        hooks.append(("hook_embed", edit_prompt(plans, vectors.shape[0], starts)))
    return hooks


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
