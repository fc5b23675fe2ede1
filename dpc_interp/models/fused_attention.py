"""Fused attention: passes that never hold an attention pattern (docs/method.md, section 2).

Within `fused_attention(model)` the attention layers of a model call PyTorch's `scaled_dot_product_attention`. A layer
keeps its pattern where a hook reads it or where the fused function cannot compute it (a hook that only removes edges
needs no pattern); `pattern_layers` says which layers these are and why. All other hook points fire as before.
`PatternGradient` is handed A * dL/dA of the fused layers in the backward pass.

- `HookedTransformer`: three methods of an attention layer are replaced inside the context, those that compute scores,
  mask them and weight the values. The methods between them get a placeholder [1, 1, 1, 1].
- `TransformerBridge`: the wrapped Hugging Face attention runs, with this module as its registered attention function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import AttentionBridge
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from dpc_interp.attention.backward import PatternGradient, attend
from dpc_interp.attention.edges import edges_removed_at, only_removes_edges
from dpc_interp.attention.inputs import AttentionInputs
from dpc_interp.errors import DPCInterpError
from dpc_interp.models.lens import ATTENTION_CLASSES, HookedTransformer

INTERFACE = "dpc_interp_fused"
"""Name of the attention function in the registry of transformers."""
HOOK_REASON = "a hook is on the pattern"
REPLACED_REASON = "a method of the attention layer was replaced"
UNSUPPORTED = ("attn_logit_softcapping", "sinks", "attention_chunk_size", "position_bias", "alibi", "index_topk")
"""Attributes of a wrapped layer or its configuration that the fused function does not have."""
OVERRIDDEN = ("calculate_attention_scores", "apply_causal_mask", "calculate_z_scores")


def pattern_layers(model: HookedTransformer | TransformerBridge) -> dict[int, str]:
    """The layers that compute their attention pattern even within `fused_attention`.

    Args:
        model: any supported model.

    Returns:
        Layer -> why. Empty: every layer is fused.

    Example:
        >>> import dpc_interp as dpc
        >>> model = dpc.load_model("reasoner")
        >>> with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", print)]):
        ...     pattern_layers(model)
        {1: 'a hook is on the pattern'}
    """
    why_pattern = _why_hooked if isinstance(model, HookedTransformer) else partial(_why_bridge, model)
    reasons = {
        layer: why for layer, block in enumerate(model.blocks) if (why := why_pattern(getattr(block, "attn", None)))
    }
    if reasons and not isinstance(model, HookedTransformer):
        # the wrapped Hugging Face model makes one mask for all of its layers
        first = next(iter(reasons.values()))
        return {layer: reasons.get(layer, first) for layer in range(len(model.blocks))}
    return reasons


def describe_attention(model: HookedTransformer | TransformerBridge) -> str:
    """How the layers of a model compute attention now, for the options of a result.

    Args:
        model: any supported model.

    Returns:
        `fused`, or `patterns` with the first reason and the number of layers.
    """
    patterns = pattern_layers(model)
    if not patterns:
        return "fused"
    return f"patterns in {len(patterns)} of {len(model.blocks)} layers: {next(iter(patterns.values()))}"


def _why_hooked(attention: Any) -> str:
    """Why a layer of a HookedTransformer computes its pattern; empty if it need not."""
    cfg = attention.cfg
    if _needs_pattern(attention):
        return HOOK_REASON
    if _is_replaced(attention, OVERRIDDEN):
        return REPLACED_REASON
    reasons = {
        f"{type(attention).__name__} computes attention in its own way": type(attention) not in ATTENTION_CLASSES,
        "scores have a soft cap": cfg.attn_scores_soft_cap > 0,
        "scores have a bias": cfg.positional_embedding_type in ("alibi", "relative_positional_bias"),
        "the softmax has a sink": getattr(cfg, "use_attention_sinks", False),
        "attention is not causal": cfg.attention_dir != "causal",
    }
    return next((why for why, holds in reasons.items() if holds), "")


def _why_bridge(model: TransformerBridge, attention: Any) -> str:
    """Why a layer of a bridge computes its pattern; empty if it need not."""
    hf_model: Any = model.original_model
    wrapped = getattr(attention, "original_component", None)
    if not isinstance(attention, AttentionBridge) or wrapped is None:
        return "the layer has no attention that this package knows"
    if _is_replaced(attention, ("forward",)):
        return REPLACED_REASON
    # hook points of components that the wrapped layer calls fire; a layer with one matrix for q, k and v calls none
    points_that_fire = {attention.hook_in, attention.hook_out, *wrapped.modules()}
    points = {p for p in attention.modules() if isinstance(p, HookPoint)} - points_that_fire - {attention.hook_pattern}
    if not only_removes_edges(attention.hook_pattern) or any(map(_has_hooks, points)):
        return HOOK_REASON
    if _has_own_weights(attention, wrapped):
        return "the bridge computes queries, keys and values with weights of its own"
    if not getattr(hf_model, "_supports_attention_backend", False):
        return f"{type(hf_model).__name__} has no exchangeable attention function"
    config = hf_model.config.get_text_config()
    special = [
        n for n in UNSUPPORTED if any(getattr(owner, n, None) not in (None, False) for owner in (wrapped, config))
    ]
    if special:
        return f"attention has {special[0]}"
    if wrapped.training:
        return "the layer is in training mode, where it may drop out attention"
    return "" if getattr(wrapped, "is_causal", True) else "attention is not causal"


def _has_own_weights(attention: Any, wrapped: Any) -> bool:
    """Whether a bridge has split one matrix into copies, which a caller or TransformerLens may have changed."""
    storages = {weight.untyped_storage().data_ptr() for weight in wrapped.parameters()}
    projections = [getattr(attention, name) for name in ("q", "k", "v") if hasattr(attention, name)]
    weights = (weight for projection in projections for weight in projection.parameters())
    return any(weight.untyped_storage().data_ptr() not in storages for weight in weights)


def _is_replaced(attention: Any, names: Iterable[str]) -> bool:
    """Whether a caller has replaced a method on the instance."""
    methods = [vars(attention)[name] for name in names if name in vars(attention)]
    return any(not isinstance(getattr(method, "__self__", None), _FusedLayer) for method in methods)


def _needs_pattern(attention: Any) -> bool:
    """Whether a hook reads the scores or the pattern of a layer of a HookedTransformer."""
    return _has_hooks(attention.hook_attn_scores) or not only_removes_edges(attention.hook_pattern)


def _has_hooks(point: Any) -> bool:
    return bool(point._forward_hooks or point._backward_hooks)


@contextmanager
def fused_attention(
    model: HookedTransformer | TransformerBridge, gradient: PatternGradient | None = None
) -> Iterator[None]:
    """Within, the layers that are not in `pattern_layers(model)` compute fused attention; afterwards they are restored.

    Args:
        model: any supported model. Contexts may be nested; the outer one applies.
        gradient: receives A * dL/dA of each fused layer; None: an ordinary backward pass.
    """
    patterns, padding = pattern_layers(model), _Padding()
    methods = OVERRIDDEN if isinstance(model, HookedTransformer) else ("forward",)
    overrides: dict[Any, dict[str, Any]] = {}
    for layer, block in enumerate(model.blocks):
        if layer not in patterns and not any(name in vars(block.attn) for name in methods):
            fused = _FusedLayer(layer, block.attn, gradient, padding)
            overrides[block.attn] = {name: getattr(fused, name) for name in methods}
    configs = _configs(model) if overrides and isinstance(model, TransformerBridge) else []
    implementations = [config._attn_implementation for config in configs]
    try:
        for attention, methods_of_layer in overrides.items():
            # an attribute of the instance takes precedence over the method of its class
            vars(attention).update(methods_of_layer)
        for config in configs:
            config._attn_implementation = INTERFACE
        yield
    finally:
        for attention, methods_of_layer in overrides.items():
            for name in methods_of_layer:
                vars(attention).pop(name, None)
        for config, implementation in zip(configs, implementations, strict=True):
            config._attn_implementation = implementation


def _configs(model: TransformerBridge) -> list[Any]:
    """Every configuration that a module of the wrapped model reads."""
    modules: Any = model.original_model.modules()
    configs = [module.config for module in modules if hasattr(getattr(module, "config", None), "_attn_implementation")]
    return list({id(config): config for config in configs}.values())


class _FusedLayer:
    """The methods that replace those of one attention layer."""

    def __init__(self, layer: int, attention: Any, gradient: PatternGradient | None, padding: _Padding):
        self.layer, self.gradient = layer, gradient
        self._attention, self._padding = attention, padding
        self._queries_and_keys: tuple[Tensor, Tensor] | None = None
        self._visible: Tensor | None = None

    def calculate_attention_scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Keep queries and keys [batch, pos, head, d_head]; return a placeholder instead of scores.

        A hook of the caller may run another pass of the model that reads the pattern: that one computes it.
        """
        if _needs_pattern(self._attention):
            self._queries_and_keys = None
            return cast(Tensor, type(self._attention).calculate_attention_scores(self._attention, q, k))
        self._queries_and_keys = q.transpose(1, 2), k.transpose(1, 2)
        return q.new_zeros(1, 1, 1, 1)

    def apply_causal_mask(self, attn_scores: Tensor, past_kv_pos_offset: int = 0, attention_mask: Any = None) -> Tensor:
        """Keep the padding; return the placeholder."""
        if self._queries_and_keys is None:
            attention: Any = self._attention
            return cast(
                Tensor,
                type(attention).apply_causal_mask(attention, attn_scores, past_kv_pos_offset, attention_mask),
            )
        self._visible = self._padding.visible_keys(attention_mask)
        return attn_scores

    def calculate_z_scores(self, v: Tensor, pattern: Tensor) -> Tensor:
        """Weight the values [batch, pos, head, d_head]; `pattern` is the placeholder."""
        attention = self._attention
        if self._queries_and_keys is None:
            return cast(Tensor, type(attention).calculate_z_scores(attention, v, pattern))
        q, k = self._queries_and_keys
        self._queries_and_keys = None
        window = attention.cfg.window_size if attention.attn_type == "local" else None
        scale = 1 / attention.attn_scale
        return cast(Tensor, attention.hook_z(self.attend(q, k, v.transpose(1, 2), scale, window, self._visible)))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, visible: Tensor | None
    ) -> Tensor:
        """Compute z [batch, pos, head, d_head] without the edges that hooks on the pattern remove.

        Args:
            q, k, v, scale, window, visible: see `AttentionInputs`.
        """
        shape = torch.Size((*q.shape[:3], k.shape[2]))
        removed = edges_removed_at(self._attention.hook_pattern, self.layer, shape, q.device)
        inputs = AttentionInputs(self.layer, q, k, v, scale, window, visible, removed)
        return attend(inputs, self.gradient).transpose(1, 2)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the attention that a bridge wraps, which calls `_attention_function`."""
        attention = self._attention
        wrapped = attention.original_component
        if "hidden_states" in kwargs:
            kwargs["hidden_states"] = attention.hook_in(kwargs["hidden_states"])
        else:
            args = (attention.hook_in(args[0]), *args[1:])
        vars(wrapped)[INTERFACE] = self
        try:
            output = wrapped(*args, **kwargs)
        finally:
            vars(wrapped).pop(INTERFACE, None)
        return (attention.hook_out(output[0]), *output[1:]) if isinstance(output, tuple) else attention.hook_out(output)


class _Padding:
    """Reads the mask of a pass once for all layers, because reading it waits for a GPU."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None
        self._visible: Tensor | None = None

    def visible_keys(self, mask: Tensor | None) -> Bool[Tensor, "batch src"] | None:
        """False at keys that are padding; None: no padding."""
        if mask is not self._mask:
            self._mask = mask
            self._visible = None if mask is None or bool(mask.all()) else mask.bool()
        return self._visible


def _attention_function(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function that transformers calls, with the mask [batch, src] of Flash Attention."""
    unknown = [name for name in ("softcap", "s_aux", "position_bias", "indices") if kwargs.get(name) is not None]
    if attention_mask is not None and attention_mask.ndim != 2:
        unknown.append("a mask of its own")
    if unknown:
        raise DPCInterpError(
            f"{type(module).__name__} computes attention with {unknown[0]}, which fused attention does not have; put a "
            "hook on blocks.0.attn.hook_pattern, so that patterns are computed, and report the model"
        )
    fused: _FusedLayer = vars(module)[INTERFACE]
    scale, window = kwargs.get("scaling") or query.shape[-1] ** -0.5, kwargs.get("sliding_window")
    visible = None if attention_mask is None else attention_mask.bool()  # the mask is None where nothing is padded
    return fused.attend(query, key, value, scale, window, visible).contiguous(), None


AttentionInterface.register(INTERFACE, _attention_function)
AttentionMaskInterface.register(INTERFACE, flash_attention_mask)
