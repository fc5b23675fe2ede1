"""What a model is here, `HookedTransformer` or `TransformerBridge`, and the one thing they do apart: cached decoding.

Hook points, `hooks(...)`, `cfg` and the forward pass over tokens and a mask are the same in both. The cache is not:
a HookedTransformer fills one in TransformerLens's form (`cache.py`), a bridge hands on the key and value cache of the
Hugging Face model it wraps.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.cache import DecodingCache
from dpc_interp.lm.lens import HookedTransformer

HookedModel = HookedTransformer | TransformerBridge
"""What every public function takes as its model."""
Hook = tuple[str | Callable[..., Any], Callable[..., Any]]
"""A hook point's name, or a filter of names, and what acts there: as `model.hooks(fwd_hooks=...)` takes them."""


def tokenizer_of(model: HookedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer; a model without one is refused."""
    if model.tokenizer is None:
        raise DPCInterpError("this model has no tokenizer; load it with one")
    return model.tokenizer


def attention_span(model: HookedModel) -> int:
    """Over how many positions the layer looks back that sees least; at most the context."""
    if isinstance(model, HookedTransformer):
        spans = [model.cfg.window_size if model.cfg.use_local_attn else None]
    else:
        config = cast(PreTrainedModel, model.original_model).config.get_text_config()
        spans = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    return min(span for span in (*spans, model.cfg.n_ctx) if span)


class CachedDecoding:
    """One batch being decoded: each call feeds more tokens behind those already read."""

    def __init__(self, model: HookedModel, batch: int):
        self._model = model
        self._cache: Any = None
        self._mask: Tensor | None = None
        if isinstance(model, HookedTransformer):
            self._cache = DecodingCache(model, batch)

    def __call__(
        self, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "row logit_pos d_vocab"]:
        """Logits [batch, pos, d_vocab] of `tokens`, unless a hook of the caller's left fewer.

        `mask` is 0 on padding, None: there is none.

        Raises:
            DPCInterpError: the wrapped model keeps no cache that can be read.
        """
        tokens = tokens.to(self._model.cfg.device)
        mask = torch.ones_like(tokens) if mask is None else mask.to(tokens.device)
        if isinstance(self._model, HookedTransformer):
            self._cache.padded = self._cache.padded or not bool(mask.all())  # asked of a GPU no more once it is
            with self._cache.reading():
                return self._model(tokens, attention_mask=mask, past_kv_cache=self._cache, prepend_bos=False)
        self._mask = mask if self._mask is None else torch.cat([self._mask, mask], dim=1)
        logits, self._cache = self._model(
            tokens,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            return_type="logits_and_cache",
        )
        if not isinstance(self._cache, Cache):
            raise DPCInterpError(
                "the wrapped model returns no key and value cache; take a model whose layers all attend"
            )
        return logits

    def copied(self, rows: Int[Tensor, " kept"]) -> CachedDecoding:
        """`rows`, which may repeat, as a batch that goes on by itself from what was read."""
        copied = copy(self)
        if isinstance(self._cache, DecodingCache):
            copied._cache = self._cache.copied(rows.to(self._model.cfg.device))
        else:
            copied._cache = deepcopy(self._cache)
            copied.select(rows)
        return copied

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Make the batch of `rows`, which may repeat; gradients of copies add up."""
        rows = rows.to(self._model.cfg.device)
        if isinstance(self._cache, DecodingCache):
            self._cache.select(rows)
        elif self._mask is not None:
            self._mask = self._mask[rows]
            self._cache.batch_select_indices(rows)

    def forget(self, last: Bool[Tensor, "batch new"]) -> None:
        """Hide some of what was read last from all that follows, which takes the positions of what is hidden."""
        if isinstance(self._cache, DecodingCache):
            self._cache.padded = True
            self._cache.previous_attention_mask = _without(self._cache.previous_attention_mask, last)
        elif self._mask is not None:
            self._mask = _without(self._mask, last)


def _without(mask: Int[Tensor, "batch pos"], last: Bool[Tensor, "batch new"]) -> Int[Tensor, "batch pos"]:
    n_kept = mask.shape[1] - last.shape[1]
    return torch.cat([mask[:, :n_kept], mask[:, n_kept:].masked_fill(last.to(mask.device), 0)], dim=1)
