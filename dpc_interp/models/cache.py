"""The key and value cache for decoding with a `HookedTransformer`: each key is rotated once, when it is appended.

TransformerLens 3.9 caches keys before the rotary embedding, rotates all of them again in every pass, and copies the
whole cache to append one token. This cache stores rotated keys in buffers with spare positions, laid out for fused
attention. A rotation depends only on a key's own position, so the keys are the same bit for bit. In a padded batch the
positions of the new tokens are counted once a pass, where TransformerLens counts those of all tokens twice a layer. A
rotation is one rolled copy and two products, which take 0.3 to 0.5 of the time of TransformerLens's operations.
Every hook point fires as before; `hook_rot_k` sees all keys, and a hook there gets a copy of them.

The cache replaces `apply_rotary` of the attention layers, and `get_pos_offset` of a model with ungrouped keys, but only
inside `DecodingCache.patched_attention()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

from dpc_interp.models.lens import ATTENTION_CLASSES, HookedTransformer

ROTATIONS = {attention.apply_rotary for attention in ATTENTION_CLASSES}
"""TransformerLens's own rotations; a layer with another one is called."""
ROTATE_EVERY_TWO = {attention.rotate_every_two for attention in ATTENTION_CLASSES}
"""The part of them that a rolled copy replaces."""
SPARE_POSITIONS = 64
"""Unused positions of a newly allocated buffer: one copy of the cache per 64 tokens instead of one per token."""


class RotatedCacheEntry(TransformerLensKeyValueCacheEntry):
    """Keys and values of one layer: `past_keys` and `past_values` are views [batch, pos, head, d_head] of buffers.

    Args:
        cache: the cache that the entry belongs to.
        attention: the attention layer.
        rotates: whether to store keys rotated.
    """

    def __init__(self, cache: DecodingCache, attention: Any, rotates: bool):
        self._cache, self._attention = cache, attention
        # a caller who replaced `apply_rotary` on this layer expects it to see all keys in every pass
        self._rotates = rotates and "apply_rotary" not in vars(attention)
        cfg = attention.cfg
        n_rows = len(cache.previous_attention_mask)
        # ungrouped, a layer computes a key and a value for every query head
        n_heads = cfg.n_heads if cfg.ungroup_grouped_query_attention else cfg.n_key_value_heads or cfg.n_heads
        empty = torch.empty(n_rows, n_heads, 0, cfg.d_head)
        # keys and values, each [batch, head, pos, d_head]; the first tokens set dtype and device
        self._buffers = [empty, empty]
        super().__init__(empty.transpose(1, 2), empty.transpose(1, 2))

    def append(
        self, new_keys: Float[Tensor, "batch new head d_head"], new_values: Float[Tensor, "batch new head d_head"]
    ) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, "batch pos head d_head"]]:
        """Append the keys and values of new tokens.

        Args:
            new_keys: keys before the rotary embedding.
            new_values: values.

        Returns:
            All keys (rotated, where the entry rotates) and all values, the new ones last.
        """
        start = self.past_keys.shape[1]
        stop = start + new_keys.shape[1]
        if self._rotates:
            new_keys = self._rotate(new_keys, start)
        for i, new in enumerate((new_keys.transpose(1, 2), new_values.transpose(1, 2))):
            buffer = self._buffers[i]
            if torch.is_grad_enabled():  # autograd may need the old buffer: never write in place
                self._buffers[i] = torch.cat([buffer[:, :, :start].to(new), new], dim=2)
                continue
            if stop > buffer.shape[2]:
                self._buffers[i] = new.new_empty(*new.shape[:2], stop + SPARE_POSITIONS, new.shape[3])
                self._buffers[i][:, :, :start] = buffer[:, :, :start]
            self._buffers[i][:, :, start:stop] = new
        self._set_views(stop)
        return self.past_keys, self.past_values

    def select_rows(self, rows: Int[Tensor, " n_rows"]) -> None:
        """Keep only some rows, in place.

        Args:
            rows: indices of the rows to keep; they may repeat.
        """
        n_positions = self.past_keys.shape[1]
        # indexing copies, so a fork never shares a buffer; spare positions are not copied
        self._buffers = [buffer[rows, :, :n_positions] for buffer in self._buffers]
        self._set_views(n_positions)

    def clone_for(self, cache: DecodingCache) -> RotatedCacheEntry:
        """A shallow copy that belongs to another cache.

        Args:
            cache: the other cache, whose padding the copy follows.
        """
        entry = copy(self)
        entry._cache = cache
        entry._buffers = list(self._buffers)
        return entry

    def _set_views(self, n_positions: int) -> None:
        self.past_keys, self.past_values = (buffer[:, :, :n_positions].transpose(1, 2) for buffer in self._buffers)

    def method_overrides(self) -> dict[str, Callable[..., Tensor]]:
        """The methods of the attention layer to replace while it reads this entry, by name."""
        # a method that a caller has replaced on this layer takes precedence; one of another cache does not
        present = vars(self._attention).get("apply_rotary")
        is_free = present is None or isinstance(getattr(present, "__self__", None), RotatedCacheEntry)
        return {"apply_rotary": self.apply_rotary_cached} if self._rotates and is_free else {}

    def apply_rotary_cached(
        self, x: Float[Tensor, "batch pos head d_head"], start: int, mask: Tensor | None
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Replacement of the layer's `apply_rotary` that returns cached keys unchanged: they are rotated already.

        Args:
            x: queries of the new tokens, or all cached keys.
            start: position of the first query or key.
            mask: attention mask of all positions.
        """
        if x is self.past_keys:
            # a hook may write in place, and must not change the cache
            return x.clone() if self._attention.hook_rot_k._forward_hooks else x
        if mask is not self._cache.previous_attention_mask:  # a hook may run another pass of the model
            return cast(Tensor, type(self._attention).apply_rotary(self._attention, x, start, mask))
        return self._rotate(x, start)

    def _rotate(self, x: Tensor, start: int) -> Float[Tensor, "batch new head d_head"]:
        """Rotate queries or keys of the new tokens, the first of which is token `start` of the cache."""
        attention, cache = self._attention, self._cache
        rotate = type(attention).apply_rotary
        is_in_tables = start + x.shape[1] <= len(attention.rotary_cos)  # else TransformerLens extends them
        rotate_every_two = getattr(attention.rotate_every_two, "__func__", None)  # a caller may have replaced it
        if not is_in_tables or rotate not in ROTATIONS or rotate_every_two not in ROTATE_EVERY_TWO:
            mask = cache.previous_attention_mask if cache.padded else None
            return cast(Tensor, rotate(attention, x, start, mask))
        cos, sin = cache.rotation_of(attention, start)
        n_rotated = cos.shape[-1]
        rotating = x[..., :n_rotated]
        if attention.cfg.rotary_adjacent_pairs:
            rotated = rotating * cos + attention.rotate_every_two(rotating) * sin
        else:
            rotated = rotating * cos + rotating.roll(n_rotated // 2, dims=-1) * sin
        return rotated if n_rotated == x.shape[-1] else torch.cat([rotated, x[..., n_rotated:]], dim=-1)


class DecodingCache(TransformerLensKeyValueCache):
    """The cache of one model and batch, empty at first.

    Args:
        model: the model that will fill it.
        batch_size: rows of the batch.

    Attributes:
        padded: whether a token was masked so far. Until then tokens are rotated by their places in the cache.
    """

    def __init__(self, model: HookedTransformer, batch_size: int):
        self.padded = False
        self._positions: tuple[Tensor, Tensor] | None = None
        self._rotation: tuple[object, Tensor, tuple[Tensor, Tensor]] | None = None
        device = model.cfg.device
        super().__init__([], torch.empty((batch_size, 0), dtype=torch.int, device=device))
        # with dynamic NTK the rotation depends on the length read so far, so a key cannot be rotated once for all
        rotates = model.cfg.positional_embedding_type == "rotary" and not model.cfg.use_dynamic_ntk_rope
        attentions: list[Any] = [block.attn for block in model.blocks]
        self._layers = [(attention, RotatedCacheEntry(self, attention, rotates)) for attention in attentions]
        self._model = model
        self.entries = [entry for _, entry in self._layers]

    def rotation_of(self, attention: Any, start: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [row, new, 1, rotary_dim] at the new tokens of a pass; one row unless the batch is padded.

        Where pairs are not adjacent, the sines carry the signs of `rotate_every_two`; a rolled copy then replaces it.

        Args:
            attention: the layer; its queries use those of its keys.
            start: the first new token.
        """
        mask = self.previous_attention_mask  # another tensor in every pass
        if self._positions is None or self._positions[0] is not mask:
            counted = mask if self.padded else torch.ones_like(mask[:1])
            self._positions = mask, (counted.cumsum(1)[:, start:] - 1).clamp(min=0)
        positions = self._positions[1]
        if self._rotation is None or self._rotation[0] is not attention or self._rotation[1] is not positions:
            index = positions.to(attention.rotary_cos.device)
            cos, sin = (embedding(index, table)[:, :, None] for table in (attention.rotary_cos, attention.rotary_sin))
            if not attention.cfg.rotary_adjacent_pairs:
                half = sin.shape[-1] // 2
                sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._rotation = attention, positions, (cos, sin)
        return self._rotation[2]

    def select_rows(self, rows: Int[Tensor, " n_rows"]) -> None:
        """Keep only some rows of the batch, in place.

        Args:
            rows: indices of the rows to keep; they may repeat.
        """
        for _, entry in self._layers:
            entry.select_rows(rows)
        self.previous_attention_mask = self.previous_attention_mask[rows]

    def fork(self, rows: Int[Tensor, " n_rows"]) -> DecodingCache:
        """Return an independent copy of some rows.

        Args:
            rows: indices of the rows to copy; they may repeat.
        """
        forked = copy(self)
        forked._layers = [(attention, entry.clone_for(forked)) for attention, entry in self._layers]
        forked.entries = [entry for _, entry in forked._layers]
        forked.select_rows(rows)
        return forked

    def pos_offset(self, cache: object, n_rows: int) -> int:
        """Replacement of the model's `get_pos_offset` that takes this cache whatever its number of heads.

        Args:
            cache: the cache that a pass of the model reads, this one or another.
            n_rows: rows of the batch.
        """
        if cache is not self:  # another forward pass of the model, inside a hook of the caller
            offset: int = type(self._model).get_pos_offset(self._model, cache, n_rows)
            return offset
        return self.entries[0].past_keys.shape[1]

    @contextmanager
    def patched_attention(self) -> Iterator[None]:
        """Within, the model's attention layers read this cache; afterwards they are restored, also on an exception."""
        overrides_by_layer: dict[Any, dict[str, Any]] = {
            attention: entry.method_overrides() for attention, entry in self._layers
        }
        if self._model.cfg.ungroup_grouped_query_attention and "get_pos_offset" not in vars(self._model):
            # TransformerLens refuses a cache that has a key for every query head, which ungrouped layers fill
            overrides_by_layer[self._model] = {"get_pos_offset": self.pos_offset}
        patched = list(overrides_by_layer)
        before = [{name: vars(module).get(name) for name in overrides_by_layer[module]} for module in patched]
        try:
            for module, overrides in overrides_by_layer.items():
                # an attribute of the instance takes precedence over the method of its class
                vars(module).update(overrides)
            yield
        finally:
            for module, methods in zip(patched, before, strict=True):
                for name, method in methods.items():
                    vars(module).pop(name, None)
                    if method is not None:  # of another cache, whose pass this one is nested in
                        vars(module)[name] = method
