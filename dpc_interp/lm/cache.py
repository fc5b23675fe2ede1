"""The key and value cache that a `HookedTransformer` decodes with: each key is rotated once, when it comes in.

TransformerLens 3.9 caches keys as they are before the rotary embedding, rotates all of them again at every step, and
copies all of them to add one. Here an entry holds them rotated, with room behind them for those to come, and in the
order in which the products read them (`grouped.py`). A rotation acts on each number by its own position, so what the
model computes is the same bit for bit, or, where heads share keys, to rounding. Every hook point fires as before;
`hook_rot_k` sees all keys, of which a hook gets a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

from dpc_interp.lm.grouped import is_grouped, mix, scores
from dpc_interp.lm.lens import HookedTransformer

ROOM = 64
"""Positions that a buffer grows by."""


class Entry(TransformerLensKeyValueCacheEntry):
    """Keys and values of one layer: `past_keys` and `past_values` are views [batch, pos, head, d_head] of buffers."""

    def __init__(self, cache: DecodingCache, attention: Any, rotates: bool):
        self._cache, self._attention = cache, attention
        self._rotates = rotates and "apply_rotary" not in vars(attention)
        cfg = attention.cfg
        nothing = torch.empty(len(cache.previous_attention_mask), cfg.n_key_value_heads or cfg.n_heads, 0, cfg.d_head)
        self._buffers = [nothing, nothing]  # [batch, head, pos, d_head]
        super().__init__(nothing.transpose(1, 2), nothing.transpose(1, 2))

    def append(
        self, new_keys: Float[Tensor, "batch new head d_head"], new_values: Float[Tensor, "batch new head d_head"]
    ) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, "batch pos head d_head"]]:
        """All keys and values, the new ones last."""
        start = self.past_keys.shape[1]
        stop = start + new_keys.shape[1]
        if self._rotates:
            rotate = type(self._attention).apply_rotary
            mask = self._cache.previous_attention_mask if self._cache.padded else None
            new_keys = rotate(self._attention, new_keys, start, mask)
        for i, new in enumerate((new_keys.transpose(1, 2), new_values.transpose(1, 2))):
            held = self._buffers[i]
            if torch.is_grad_enabled():  # what the backward pass reads is not written over
                self._buffers[i] = torch.cat([held[:, :, :start].to(new), new], dim=2)
                continue
            if stop > held.shape[2]:
                self._buffers[i] = new.new_empty(*new.shape[:2], stop + ROOM, new.shape[3])
                self._buffers[i][:, :, :start] = held[:, :, :start]
            self._buffers[i][:, :, start:stop] = new
        self._view(stop)
        return self.past_keys, self.past_values

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Leave only `rows`, which may repeat; without room, so that the next keys get buffers of their own."""
        n_read = self.past_keys.shape[1]
        self._buffers = [buffer[rows, :, :n_read] for buffer in self._buffers]
        self._view(n_read)

    def of(self, cache: DecodingCache) -> Entry:
        """The same, as an entry of a copy."""
        entry = copy(self)
        entry._cache = cache
        return entry

    def _view(self, n_read: int) -> None:
        self.past_keys, self.past_values = (buffer[:, :, :n_read].transpose(1, 2) for buffer in self._buffers)

    def methods(self) -> dict[str, Callable[..., Tensor]]:
        """What the layer does otherwise with this entry than without."""
        found: dict[str, Callable[..., Tensor]] = {}
        if self._rotates:
            found["apply_rotary"] = self.rotated
        if is_grouped(self._attention):
            found["calculate_attention_scores"] = partial(scores, self._attention)
            found["calculate_z_scores"] = partial(mix, self._attention)
        if not self._cache.padded:
            found["apply_causal_mask"] = self.masked
        # a method that a caller has put in the layer's place stays
        return {name: method for name, method in found.items() if name not in vars(self._attention)}

    def rotated(self, x: Tensor, start: int, mask: Tensor | None) -> Tensor:
        """What the layer's `apply_rotary` gives; cached keys have been rotated."""
        if x is self.past_keys:
            return x.clone() if self._attention.hook_rot_k._forward_hooks else x
        return type(self._attention).apply_rotary(self._attention, x, start, mask if self._cache.padded else None)

    def masked(
        self, attn_scores: Float[Tensor, "batch head dest src"], start: int, mask: object
    ) -> Float[Tensor, "batch head dest src"]:
        """What the layer's `apply_causal_mask` gives where nothing is padded; the way back through a sum is free."""
        seen = attn_scores.new_zeros(1, 1, *attn_scores.shape[2:])
        return attn_scores + type(self._attention).apply_causal_mask(self._attention, seen, start)


class DecodingCache(TransformerLensKeyValueCache):
    """A cache of one model and batch, empty at first.

    While nothing read is `padded`, layers look at no mask of what is: each would make one of all its scores.
    """

    def __init__(self, model: HookedTransformer, batch: int):
        self.padded = False
        device = model.cfg.device
        super().__init__([], torch.empty((batch, 0), dtype=torch.int, device=device))
        # a table that depends on how much is read would turn the keys again
        rotates = model.cfg.positional_embedding_type == "rotary" and not model.cfg.use_dynamic_ntk_rope
        attentions: list[Any] = [block.attn for block in model.blocks]
        self._layers = [(attention, Entry(self, attention, rotates)) for attention in attentions]
        self.entries = [entry for _, entry in self._layers]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Make the batch of `rows`, which may repeat."""
        for _, entry in self._layers:
            entry.select(rows)
        self.previous_attention_mask = self.previous_attention_mask[rows]

    def copied(self, rows: Int[Tensor, " kept"]) -> DecodingCache:
        """A cache of `rows`, which may repeat, that goes on by itself from what was read."""
        copied = copy(self)
        copied._layers = [(attention, entry.of(copied)) for attention, entry in self._layers]
        copied.entries = [entry for _, entry in copied._layers]
        copied.select(rows)
        return copied

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within, the model's layers take cached keys as they are."""
        ours = {attention: entry.methods() for attention, entry in self._layers}
        try:
            for attention, methods in ours.items():
                vars(attention).update(methods)  # the instance's, before its class's
            yield
        finally:
            for attention, methods in ours.items():
                for name in methods:
                    vars(attention).pop(name, None)
