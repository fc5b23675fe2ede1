"""The models that the package accepts, and cached decoding, the one thing that their two classes do differently.

`HookedTransformer` and `TransformerBridge` have the same hook points, `hooks(...)`, `cfg` and forward pass over tokens
and an attention mask. Their caches differ: a HookedTransformer fills one of TransformerLens's form (`cache.py`), a
bridge returns the key and value cache of the Hugging Face model that it wraps. `CachedDecoding` hides the difference.

For some families (OPT, XGLM, GPT-J, GPT-Neo) a bridge calls Hugging Face's attention and its hook only observes the
pattern. `use_pattern_hooks` makes such layers compute with what the hook returns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import AttentionBridge
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from dpc_interp.errors import ContextLengthError, DPCInterpError
from dpc_interp.models.cache import DecodingCache
from dpc_interp.models.fused_attention import fused_attention
from dpc_interp.models.lens import HookedTransformer

HookedModel = HookedTransformer | TransformerBridge
"""The type of `model` in every public function."""

Hook = tuple[str | Callable[..., Any], Callable[..., Any]]
"""A hook point's name, or a filter of names, and the function to call there, as in `model.hooks(fwd_hooks=...)`."""


def tokenizer_of(model: HookedModel) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer.

    Args:
        model: any supported model.

    Raises:
        DPCInterpError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise DPCInterpError("this model has no tokenizer; load it with one")
    return model.tokenizer


def attention_span(model: HookedModel) -> int:
    """Number of positions that every layer can attend to: the shortest sliding window, or the context length.

    Args:
        model: any supported model.
    """
    if isinstance(model, HookedTransformer):
        spans = [model.cfg.window_size if model.cfg.use_local_attn else None]
    else:
        config = cast(PreTrainedModel, model.original_model).config.get_text_config()
        spans = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    return min(span for span in (*spans, model.cfg.n_ctx) if span)


def n_block_weights(model: HookedModel) -> int:
    """Number of weights in a block, with keys and values counted once per query head.

    Args:
        model: any supported model.
    """
    cfg, (n_matrices, d_mlp) = model.cfg, mlp_shape(model)
    return 4 * cfg.d_model * cfg.n_heads * cfg.d_head + n_matrices * cfg.d_model * d_mlp


def mlp_shape(model: HookedModel) -> tuple[int, int]:
    """Number of weight matrices in an MLP (3 where it is gated, else 2) and its width.

    Args:
        model: any supported model.
    """
    # a bridge's configuration may lack both fields; memory estimates then assume the larger, gated MLP
    return (3 if getattr(model.cfg, "gated_mlp", True) else 2), model.cfg.d_mlp or 4 * model.cfg.d_model


class CachedDecoding:
    """A batch that is read in several forward passes: each call appends tokens to those already read.

    Args:
        model: any supported model.
        batch_size: rows of the batch.
    """

    def __init__(self, model: HookedModel, batch_size: int):
        self._model = model
        self._cache: Any = None  # a bridge makes its cache in the first pass
        self._mask: Tensor | None = None
        if isinstance(model, HookedTransformer):
            self._cache = DecodingCache(model, batch_size)

    def __call__(
        self, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "row logit_pos d_vocab"]:
        """Run the model on new tokens.

        Args:
            tokens: the new tokens of each row.
            mask: 0 on padding, else 1; None: no padding.

        Returns:
            Logits [batch, pos, d_vocab] of the new tokens; fewer rows or positions where a caller's hook drops some.

        Raises:
            DPCInterpError: the wrapped model returns no key and value cache.
        """
        tokens = tokens.to(self._model.cfg.device)
        mask = torch.ones_like(tokens) if mask is None else mask.to(tokens.device)
        if isinstance(self._model, HookedTransformer):
            # `bool` waits for a GPU, so it is evaluated only until the first padding
            self._cache.padded = self._cache.padded or not bool(mask.all())
            with fused_attention(self._model), self._cache.patched_attention():
                return self._model(tokens, attention_mask=mask, past_kv_cache=self._cache, prepend_bos=False)
        # Hugging Face expects the mask of all positions, TransformerLens that of the new ones
        self._mask = mask if self._mask is None else torch.cat([self._mask, mask], dim=1)
        with fused_attention(self._model):
            logits, self._cache = self._model(
                tokens,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                return_type="logits_and_cache",
            )
        if not isinstance(self._cache, Cache):
            raise DPCInterpError(
                "the wrapped model returns no key and value cache; use a model with attention in every layer"
            )
        return logits

    def fork(self, rows: Int[Tensor, " n_rows"]) -> CachedDecoding:
        """Return an independent copy of some rows; reading more tokens into one leaves the other unchanged.

        Args:
            rows: indices of the rows to copy; they may repeat.
        """
        forked = copy(self)
        if isinstance(self._cache, DecodingCache):
            forked._cache = self._cache.fork(rows.to(self._model.cfg.device))
        else:
            # `select_rows` copies keys and values; PyTorch refuses a deep copy of tensors that have a gradient
            layers = [vars(layer) for layer in getattr(self._cache, "layers", ())]
            kept = {id(layer.get(name)): layer.get(name) for layer in layers for name in ("keys", "values")}
            forked._cache = deepcopy(self._cache, kept)
            forked.select_rows(rows)
        return forked

    def select_rows(self, rows: Int[Tensor, " n_rows"]) -> None:
        """Keep only some rows of the batch, in place.

        Args:
            rows: indices of the rows to keep; they may repeat, and the gradients of the copies then add up.
        """
        rows = rows.to(self._model.cfg.device)
        if isinstance(self._cache, DecodingCache):
            self._cache.select_rows(rows)
        elif self._mask is not None:
            self._mask = self._mask[rows]
            self._cache.batch_select_indices(rows)

    def mask_last_tokens(self, masked: Bool[Tensor, "batch new"]) -> None:
        """Mask tokens of the last pass; later tokens reuse their positions.

        Args:
            masked: True at the tokens to mask, over the last `new` positions.
        """
        if isinstance(self._cache, DecodingCache):
            self._cache.padded = True
            self._cache.previous_attention_mask = _mask_tail(self._cache.previous_attention_mask, masked)
        elif self._mask is not None:
            self._mask = _mask_tail(self._mask, masked)


def _mask_tail(mask: Int[Tensor, "batch pos"], masked: Bool[Tensor, "batch new"]) -> Int[Tensor, "batch pos"]:
    n_before = mask.shape[1] - masked.shape[1]
    return torch.cat([mask[:, :n_before], mask[:, n_before:].masked_fill(masked.to(mask.device), 0)], dim=1)


def check_length(model: HookedModel, n_positions: int) -> None:
    """Check that a sequence fits into the model's context.

    Args:
        model: any supported model.
        n_positions: length of the sequence, including virtual tokens.

    Raises:
        ContextLengthError: the sequence is longer than the context.
    """
    if n_positions > model.cfg.n_ctx:
        raise ContextLengthError(
            f"{n_positions} positions exceed the model's context of {model.cfg.n_ctx}; give a smaller max_new_tokens, "
            "or shorten the question"
        )


def check_keeps_keys(model: HookedModel, n_positions: int) -> None:
    """Check that every layer keeps the keys of all positions, so that a key can be found by its position.

    Args:
        model: any supported model.
        n_positions: positions that are read.

    Raises:
        DPCInterpError: a bridge whose cache drops keys that are outside of the attention window.
    """
    span = attention_span(model)
    if not isinstance(model, HookedTransformer) and span < model.cfg.n_ctx and n_positions >= span:
        raise DPCInterpError(
            f"a TransformerBridge drops the keys of positions before its attention window of {span}, so that edges to "
            "them cannot be named; shorten the texts, or load the model with backend='hooked' where that is possible"
        )


class _HookedSoftmax(TorchFunctionMode):
    """Passes the first softmax over [batch, head, destination, source] through a hook point.

    Attention that joins batch and heads in one axis (XGLM) is shown to the hook with both.
    """

    def __init__(self, hook_point: Callable[[Tensor], Tensor], n_heads: int):
        super().__init__()
        self._n_heads = n_heads
        self._hook_point: Callable[[Tensor], Tensor] | None = hook_point

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_softmax = func in (functional.softmax, torch.softmax, Tensor.softmax) and result.ndim in (3, 4)
        if self._hook_point is None or not is_softmax:
            return result
        hook_point, self._hook_point = self._hook_point, None
        return hook_point(result.view(-1, self._n_heads, *result.shape[-2:])).view_as(result)


class _PatternOnLossPath(AttentionBridge):
    """Hugging Face's attention, which computes its output from what `hook_pattern` returns."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if "hidden_states" in kwargs:
            kwargs["hidden_states"] = self.hook_in(kwargs["hidden_states"])
        else:
            args = (self.hook_in(args[0]), *args[1:])
        with _HookedSoftmax(self.hook_pattern, self._get_n_heads()):
            output = cast(Any, self.original_component)(*args, **kwargs)
        return (self.hook_out(output[0]), *output[1:]) if isinstance(output, tuple) else self.hook_out(output)


def suggest_pattern_fix(model: HookedModel) -> str:
    """What to do about patterns of a model that are not on the loss path, for error messages."""
    if isinstance(model, HookedTransformer):
        return "check the hooks on the model, and see check_model(model)"
    if any(type(getattr(block, "attn", None)) is AttentionBridge for block in model.blocks):
        return "load it with load_model(folder, backend='bridge'), which puts patterns on the loss path"
    return "TransformerBridge does not compute with it; load a model of another family, such as llama, gpt2 or gpt_neox"


def use_pattern_hooks(model: TransformerBridge) -> None:
    """Put the patterns of layers that a bridge only observes on the loss path, in place; the logits do not change.

    Args:
        model: a bridge with eager attention.
    """
    for block in model.blocks:
        attention: Any = getattr(block, "attn", None)
        if type(attention) is AttentionBridge:  # its subclasses compute the pattern themselves
            attention.__class__ = _PatternOnLossPath
