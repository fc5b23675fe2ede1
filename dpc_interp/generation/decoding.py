"""Batched greedy decoding with a key-value cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the decoding loop is written here:

1. Prefill. Where the rows may share it, the prompt is run once and then `padding | Q`; otherwise `padding | P | Q`.
2. Every further pass feeds each row its last token, followed by draft tokens where a draft is given. They are verified
   in that one pass and accepted while they equal the greedy choice (speculative decoding), so a draft changes the cost
   and never the text.
3. Rows that have ended leave the batch.

Hooks that act on single rows ask `current_batch()` which rows a pass holds (`decoding_batch.py`).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dpc_interp.attention.edges import EdgeRemoval
from dpc_interp.errors import NonFiniteError
from dpc_interp.execution.batch_splits import pass_cost
from dpc_interp.generation.decoding_batch import DecodingBatch, current_batch, set_current_batch
from dpc_interp.generation.drafts import DraftLength, draft_continuation
from dpc_interp.generation.padding import left_padded, right_padded
from dpc_interp.generation.stopping import StopRule
from dpc_interp.models.hooked import CachedDecoding, Hook, HookedModel, attention_span, check_keeps_keys
from dpc_interp.prompts.embed_hooks import PromptEdit, edit_prompt, prompt_index, write_prompt
from dpc_interp.prompts.entry import embed_hook_name
from dpc_interp.prompts.prefill import can_share_prompt_cache, keep_last_position, prefill_prompt
from dpc_interp.tasks.answers import STOP_STRINGS


@runtime_checkable
class MasksAttention(Protocol):
    """A plan under which generated tokens cannot attend to some virtual tokens."""

    def hidden_tokens(self, n_layers: int, n_virtual: int) -> Bool[Tensor, "layer n_virtual"]:
        """True where a virtual token is hidden from the generated tokens."""


class PrefillInputs(NamedTuple):
    """The inputs of the first pass.

    Attributes:
        cache: holds the prompt where the rows share it; empty otherwise.
        prompt_hooks: write and edit the prompt where the pass itself reads it.
        tokens: the left-padded batch.
        mask: 0 on padding, else 1.
        starts: cache position at which the virtual tokens of each row start.
    """

    cache: CachedDecoding
    prompt_hooks: list[Hook]
    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    starts: Int[Tensor, " batch"]


def decode(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
    drafts: Sequence[Int[Tensor, " _"]] | None = None,
    stop_strings: Sequence[str] = STOP_STRINGS,
) -> list[Int[Tensor, " _"]]:
    """Decode one batch greedily.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        questions: token ids of each question.
        vectors: vectors of the soft prompt; None: no prompt.
        plans: one corruption of the prompt for each question; None: no corruption.
        max_new_tokens: the most tokens generated for a question.
        drafts: tokens of a likely answer to each question; None: none. The result does not depend on them.
        stop_strings: a text ends before the first of them.

    Returns:
        The generated tokens of each row; the last one is the stop token unless `max_new_tokens` was reached.

    Raises:
        NonFiniteError: the logits are not finite.
    """
    rule = StopRule(model, max_new_tokens, stop_strings)
    n_virtual = 0 if vectors is None else len(vectors)
    n_cached = n_virtual + max(len(question) for question in questions)
    cache, prompt_hooks, tokens, mask, starts = _prefill_inputs(
        model, questions, vectors, plans, n_cached + max_new_tokens
    )
    batch = DecodingBatch(torch.arange(len(questions)), starts)
    with model.hooks(fwd_hooks=[*prompt_hooks, ("unembed.hook_in", keep_last_position)]), set_current_batch(batch):
        logits = cache(tokens, mask)[:, -1]
    next_tokens = _greedy(logits, torch.ones(len(logits), dtype=torch.bool)).tolist()
    draft_ids = [[] for _ in questions] if drafts is None else [draft.tolist() for draft in drafts]
    # from here on only: plans hide virtual tokens from generated tokens, and the question keeps its attention to them
    hiding_hooks = _hiding_hooks(model, plans, n_virtual)
    if hiding_hooks:
        check_keeps_keys(model, n_cached + max_new_tokens)
    with model.hooks(fwd_hooks=hiding_hooks):
        generated = _generate_tokens(model, cache, batch, next_tokens, draft_ids, n_cached, max_new_tokens, rule)
    return [torch.tensor(rule.cut(row), dtype=torch.long) for row in generated]


def _prefill_inputs(
    model: HookedModel,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    n_positions: int,
) -> PrefillInputs:
    """The inputs of the first pass, for rows that reach at most `n_positions`."""
    if vectors is not None and can_share_prompt_cache(model, n_positions):
        tokens, mask, starts = left_padded(questions, 0)
        cache = prefill_prompt(model, vectors, len(questions), plans)
        # the shared prompt comes before the padding, so the virtual tokens of every row start at 0
        return PrefillInputs(cache, [], tokens, mask, torch.zeros_like(starts))
    tokens, mask, starts = left_padded(questions, 0 if vectors is None else len(vectors))
    hooks = _prompt_hooks(model, vectors, plans, starts)
    return PrefillInputs(CachedDecoding(model, len(questions)), hooks, tokens, mask, starts)


def _generate_tokens(
    model: HookedModel,
    cache: CachedDecoding,
    batch: DecodingBatch,
    next_tokens: list[int],
    drafts: list[list[int]],
    n_cached: int,
    max_new_tokens: int,
    rule: StopRule,
) -> list[list[int]]:
    """Generate until every row has ended; `next_tokens` are the first, `n_cached` positions are in the cache."""
    span = attention_span(model)
    generated: list[list[int]] = [[] for _ in drafts]
    ended = [False] * len(drafts)
    # without this cut, draft tokens after an end token could be accepted and would follow it in the result
    drafts = [_until_first(draft, rule.end_tokens) for draft in drafts]
    draft_length = DraftLength(pass_cost(model))

    while True:
        for i, token in zip(batch.rows.tolist(), next_tokens, strict=True):
            if not ended[i]:  # an accepted draft token may have been the last one
                generated[i].append(token)
                ended[i] = rule.ended(generated[i])
        unfinished = torch.tensor([not ended[i] for i in batch.rows.tolist()])
        if not unfinished.any():
            return generated
        if not unfinished.all():  # drop the other rows, which would cost as much in every pass as those that go on
            cache.select_rows(unfinished.nonzero()[:, 0])
            batch = batch.keep(unfinished)
        rows = batch.rows.tolist()
        n_remaining = [max_new_tokens - len(generated[i]) for i in rows]
        # Rejected draft tokens stay in the cache, masked, and count in the context and in attention windows. Draft only
        # as many tokens as leave room for those that may still have to be generated one by one.
        room = max(0, span - n_cached - 1 - max(n_remaining))
        input_rows, length = [], draft_length.next(len(rows))
        for i, remaining in zip(rows, n_remaining, strict=True):
            n_draft = min(length, remaining, room)
            input_rows.append([generated[i][-1], *draft_continuation(drafts[i], generated[i], n_draft)])
        tokens, mask = right_padded(input_rows)
        with set_current_batch(batch):
            predicted_rows = _greedy(cache(tokens, mask), mask.bool()).tolist()
        n_accepted = [_n_accepted(*pair) for pair in zip(input_rows, predicted_rows, strict=True)]
        draft_length.update(sum(map(len, input_rows)) - len(input_rows), sum(n_accepted))
        # the prediction after the last accepted token is the greedy choice there, so every pass yields a new token
        next_tokens = [predicted[n] for predicted, n in zip(predicted_rows, n_accepted, strict=True)]
        for i, input_row, n in zip(rows, input_rows, n_accepted, strict=True):
            generated[i] += input_row[1 : 1 + n]
            ended[i] = n > 0 and rule.ended(generated[i], n)
        if min(n_accepted) + 1 < tokens.shape[1]:  # some row has rejected draft tokens or padding
            cache.mask_last_tokens(torch.arange(tokens.shape[1]) > torch.tensor(n_accepted)[:, None])
        n_cached += tokens.shape[1]


def _greedy(logits: Float[Tensor, "*places d_vocab"], is_read: Bool[Tensor, "*places"]) -> Int[Tensor, "*places"]:
    """The greedy choices, on the CPU; raise `NonFiniteError` where one that is read is not finite."""
    tokens = logits.argmax(-1)  # of NaN, if there is one
    is_finite = logits.gather(-1, tokens[..., None])[..., 0].isfinite()
    tokens = tokens.where(is_finite, -1).cpu()  # one transfer, because each waits for a GPU
    if (tokens[is_read] < 0).any():
        raise NonFiniteError("the logits are not finite; load the model in float32 or bfloat16")
    return tokens


def _until_first(draft: list[int], tokens: Container[int]) -> list[int]:
    """The draft up to and including the first of `tokens`."""
    stop = next((i for i, token in enumerate(draft, 1) if token in tokens), len(draft))
    return draft[:stop]


def _n_accepted(input_row: list[int], predicted_row: list[int]) -> int:
    """How many draft tokens of a row, which follow its first token, equal the greedy choice before the first differs.

    `predicted_row[k]` is the greedy choice after `input_row[k]`.
    """
    draft = input_row[1:]
    return next((k for k, token in enumerate(draft) if token != predicted_row[k]), len(draft))


def _prompt_hooks(
    model: HookedModel,
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    starts: Int[Tensor, " batch"],
) -> list[Hook]:
    if vectors is None:
        return []
    embed_hook = embed_hook_name(model)
    hooks: list[Hook] = [(embed_hook, write_prompt(vectors, starts))]
    if plans is not None:
        hooks.append((embed_hook, edit_prompt(plans, vectors.shape[0], starts)))
    return hooks


def _hiding_hooks(model: HookedModel, plans: Sequence[PromptEdit] | None, n_virtual: int) -> list[Hook]:
    """Hooks at the patterns of the layers where a plan hides virtual tokens from the generated tokens."""
    shape = model.cfg.n_layers, n_virtual
    plan_of_row: list[object] = list(plans or [])
    if not any(isinstance(plan, MasksAttention) for plan in plan_of_row):
        return []
    none_hidden = torch.zeros(shape, dtype=torch.bool)
    hidden = torch.stack(
        [plan.hidden_tokens(*shape) if isinstance(plan, MasksAttention) else none_hidden for plan in plan_of_row]
    )

    def find_edges(layer: int, shape: torch.Size) -> Bool[Tensor, "batch dest src"] | None:
        batch = current_batch()
        if batch is None:  # another forward pass of the model, inside a hook of the caller
            return None
        sources = torch.zeros(len(batch.rows), shape[-1], dtype=torch.bool)
        sources[prompt_index(len(batch.rows), n_virtual, batch.starts)] = hidden[batch.rows, layer]
        return sources[:, None].expand(-1, shape[-2], -1)

    removal = EdgeRemoval(find_edges)
    layers = hidden.any(-1).any(0).nonzero()[:, 0].tolist()
    return [(f"blocks.{layer}.attn.hook_pattern", removal) for layer in layers]
