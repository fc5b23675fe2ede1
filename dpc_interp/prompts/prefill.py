"""Prefill a soft prompt once and share its keys and values among the rows of a batch.

Attention is causal, so what a layer computes at a virtual token does not depend on the tokens after it: rows with the
same prompt vectors have the same keys and values there. `prefill_prompt` computes them once for each distinct prompt.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.models.hooked import CachedDecoding, Hook, HookedModel, attention_span
from dpc_interp.prompts.embed_hooks import PromptEdit, edit_prompt, with_placeholders, write_prompt
from dpc_interp.prompts.entry import embed_hook_name


def can_share_prompt_cache(model: HookedModel, n_positions: int) -> bool:
    """Whether the rows of a batch may share the prefilled keys and values of the prompt.

    They may not while hooks are on the model, because hooks expect positions that count the virtual tokens, nor where
    a layer attends over a window shorter than the rows: the window counts positions that are masked as well.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        n_positions: positions of the longest row, padding and virtual tokens included.
    """
    has_hooks = any(point._forward_hooks or point._backward_hooks for point in model.hook_dict.values())
    return not has_hooks and n_positions <= attention_span(model)


def prefill_prompt(
    model: HookedModel,
    vectors: Float[Tensor, "n_virtual d_model"],
    batch_size: int,
    plans: Sequence[PromptEdit] | None = None,
) -> CachedDecoding:
    """Run the prompt through the model once and return a cache of `batch_size` rows that start with it.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        vectors: vectors of the prompt; gradients reach them where gradients are enabled.
        batch_size: rows of the returned cache.
        plans: one edit of the prompt for each row; equal plans are prefilled once. None: no edits.

    Returns:
        The cache, to be called with the tokens after the prompt.
    """
    keys: list[Hashable] = [_plan_key(plan) for plan in plans or []]
    distinct_plans = dict(zip(keys, plans or [], strict=True))
    embed_hook = embed_hook_name(model)
    n_rows, n_virtual = max(1, len(distinct_plans)), len(vectors)
    hooks: list[Hook] = [(embed_hook, write_prompt(vectors)), ("unembed.hook_in", keep_last_position)]
    if distinct_plans:
        hooks.insert(1, (embed_hook, edit_prompt(list(distinct_plans.values()), n_virtual)))
    cache = CachedDecoding(model, n_rows)
    with model.hooks(fwd_hooks=hooks):
        cache(with_placeholders(torch.empty(n_rows, 0, dtype=torch.long), n_virtual))
    row_of_plan = {key: row for row, key in enumerate(distinct_plans)}
    cache.select_rows(torch.tensor([0] * batch_size if plans is None else [row_of_plan[key] for key in keys]))
    return cache


def _plan_key(plan: Any) -> Hashable:
    """Any callable is a plan; one without a hash is equal only to itself."""
    return plan if isinstance(plan, Hashable) else id(plan)


def keep_last_position(resid: Float[Tensor, "row pos d_model"], hook: HookPoint) -> Float[Tensor, "row 1 d_model"]:
    """A hook for `unembed.hook_in` that avoids the logits of all positions but the last."""
    return resid[:, -1:]
