"""The prompt as a prefix that is read once: its keys and values serve every row behind it.

A virtual token reads nothing of what stands behind it, so rows with the same prompt share what the model makes of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.lm.hooked import CachedDecoding, Hook, HookedModel, attention_span
from dpc_interp.lm.soft_prompt import PromptEdit, edit_prompt, with_placeholders, write_prompt


def can_be_shared(model: HookedModel, n_positions: int) -> bool:
    """Whether rows of at most `n_positions`, padding counted, may be read behind a prompt that was read before.

    Not where hooks act on the model, for they expect whole rows, and not where a layer does not look back over all
    that is read, for it counts what is hidden from it, too.
    """
    hooked = any(point._forward_hooks or point._backward_hooks for point in model.hook_dict.values())
    return not hooked and n_positions <= attention_span(model)


def read_prompt(
    model: HookedModel,
    vectors: Float[Tensor, "n_virtual d_model"],
    batch: int,
    plans: Sequence[PromptEdit] | None = None,
) -> CachedDecoding:
    """`batch` rows that have read the prompt, each under its plan; gradients to `vectors` are kept.

    One row of each distinct plan is read, one in all where there are none.
    """
    keys: list[Hashable] = [_key(plan) for plan in plans or []]
    distinct = dict(zip(keys, plans or [], strict=True))
    n_rows, n_virtual = max(1, len(distinct)), len(vectors)
    hooks: list[Hook] = [("hook_embed", write_prompt(vectors)), ("unembed.hook_in", last)]
    if distinct:
        hooks.insert(1, ("hook_embed", edit_prompt(list(distinct.values()), n_virtual)))
    read = CachedDecoding(model, n_rows)
    with model.hooks(fwd_hooks=hooks):
        read(with_placeholders(torch.empty(n_rows, 0, dtype=torch.long), n_virtual))
    place = {key: row for row, key in enumerate(distinct)}
    read.select(torch.tensor([0] * batch if plans is None else [place[key] for key in keys]))
    return read


def _key(plan: Any) -> Hashable:
    return plan if isinstance(plan, Hashable) else id(plan)


def last(resid: Float[Tensor, "row pos d_model"], hook: HookPoint) -> Float[Tensor, "row 1 d_model"]:
    """A hook for `unembed.hook_in` that leaves the last position."""
    return resid[:, -1:]  # logits of a large vocabulary are dear
