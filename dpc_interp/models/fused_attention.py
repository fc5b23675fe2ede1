"""Fused attention: passes that never hold an attention pattern (docs/method.md, section 2).

Within `fused_attention(model)` the attention layers of a model call PyTorch's `scaled_dot_product_attention`. A layer
keeps its pattern where a hook reads it or where the fused function cannot compute it; `pattern_layers` says which
layers these are and why. All other hook points fire as before.

The backward pass computes the pattern A and its gradient anyway, a block of queries at a time, because with z = A v and
dL/dA[i, j] = (dL/dz[i]) . v[j] the gradient of a score is A (dL/dA - (dL/dz[i]) . z[i]). `PatternGradient` hands the
product A * dL/dA of each block to a caller before it is freed: exact saliency for the price of its reduction.

- `HookedTransformer`: three methods of an attention layer are replaced inside the context, those that compute scores,
  mask them and weight the values. The methods between them get a placeholder [1, 1, 1, 1].
- `TransformerBridge`: the wrapped Hugging Face attention runs, with this module as its registered attention function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import AttentionBridge
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.lens import ATTENTION_CLASSES, HookedTransformer

ROWS = 512
"""Queries of one call where a mask is needed: no mask is larger than this times the number of keys."""
BLOCK_SIZE = 2**21
"""Numbers in the largest tensor of a block of the backward pass: 8 MB, which a processor's cache holds."""
MIN_ROWS = 64
"""Queries of such a block at least."""
INTERFACE = "dpc_interp_fused"
"""Name of the attention function in the registry of transformers."""
HOOKED = "a hook is on the pattern"
REPLACED = "a method of the attention layer was replaced"
SPECIAL = ("attn_logit_softcapping", "sinks", "attention_chunk_size", "position_bias", "alibi")
"""Attributes of a wrapped layer or its configuration that the fused function does not have."""
METHODS = ("calculate_attention_scores", "apply_causal_mask", "calculate_z_scores")


@dataclass(frozen=True)
class AttentionInputs:
    """What the pattern of a layer is computed from.

    Attributes:
        layer: index of the layer.
        q: queries, after the rotary embedding.
        k: keys, after the rotary embedding.
        v: values.
        scale: factor of the scores.
        window: number of positions that a query attends to, its own included; None: all before it.
        visible: False at keys that are padding; None: no padding.
    """

    layer: int
    q: Float[Tensor, "batch head dest d_head"]
    k: Float[Tensor, "batch kv_head src d_head"]
    v: Float[Tensor, "batch kv_head src d_head"]
    scale: float
    window: int | None
    visible: Bool[Tensor, "batch src"] | None

    @property
    def n_before(self) -> int:
        """Keys before the first query, which were cached."""
        return self.k.shape[2] - self.q.shape[2]

    @property
    def is_causal(self) -> bool:
        """Whether each query attends to every position up to its own."""
        return self.visible is None and (self.window is None or self.window >= self.k.shape[2])

    def sources(self, start: int, stop: int) -> tuple[slice, Bool[Tensor, "batch 1 dest src"] | None]:
        """The keys that some queries attend to.

        Args:
            start: first query.
            stop: end of the queries.

        Returns:
            The range of the keys, and True where a query attends to a key in it; None: everywhere.
        """
        first, last = self.n_before + start, self.n_before + stop
        columns = slice(max(0, first - self.window + 1) if self.window else 0, last)
        mask = None
        if stop - start > 1:
            dest = torch.arange(first, last, device=self.q.device)[:, None]
            src = torch.arange(columns.start, last, device=self.q.device)
            mask = src <= dest
            if self.window:
                mask &= src > dest - self.window
            mask = mask[None, None]
        if self.visible is not None:
            visible = self.visible[:, None, None, columns]
            mask = visible if mask is None else mask & visible
        return columns, mask

    def attend(self) -> Float[Tensor, "batch head dest d_head"]:
        """Compute z = A v for each head, without A."""
        n_dest, n_src = self.q.shape[2], self.k.shape[2]
        grouped = self.k.shape[1] != self.q.shape[1]
        if n_dest == 1:  # heads that share a key become queries of one head: keys are not repeated
            columns, mask = self.sources(0, 1)
            q = rearrange(self.q, "batch (kv group) 1 d_head -> batch kv group d_head", kv=self.k.shape[1])
            z = scaled_dot_product_attention(
                q, self.k[:, :, columns], self.v[:, :, columns], attn_mask=mask, scale=self.scale
            )
            return rearrange(z, "batch kv group d_head -> batch (kv group) 1 d_head")
        if n_dest == n_src and self.is_causal:
            return scaled_dot_product_attention(
                self.q, self.k, self.v, is_causal=True, scale=self.scale, enable_gqa=grouped
            )
        parts = []
        for start in range(0, n_dest, ROWS):
            stop = min(start + ROWS, n_dest)
            columns, mask = self.sources(start, stop)
            k, v = self.k[:, :, columns], self.v[:, :, columns]
            q = self.q[:, :, start:stop]
            parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, enable_gqa=grouped))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class ProductBlock(NamedTuple):
    """A * dL/dA of one layer, for some queries.

    Attributes:
        first: position of the first query.
        src: positions of the keys; the product is 0 at all others.
        values: the products, float32; they are overwritten when the next block is computed.
    """

    first: int
    src: slice
    values: Float[Tensor, "batch head dest src"]


@dataclass(frozen=True)
class PatternGradient:
    """Who reads A * dL/dA in the backward pass.

    Attributes:
        read: called once a layer, from the last to the first, with the index of the layer and its blocks in order.
        graph_root: a scalar that requires a gradient; it makes the graph begin at the first layer's attention.
        first_query: positions before it are in no block.
    """

    read: Callable[[int, Iterator[ProductBlock]], None]
    graph_root: Float[Tensor, ""]
    first_query: int = 0


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
    reasons = {layer: why for layer, block in enumerate(model.blocks) if (why := why_pattern(block.attn))}
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
    if _has_hooks(attention.hook_pattern) or _has_hooks(attention.hook_attn_scores):
        return HOOKED
    if _is_replaced(attention, METHODS):
        return REPLACED
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
        return REPLACED
    # hook points of components that the wrapped layer calls fire; a layer with one matrix for q, k and v calls none
    kept = {attention.hook_in, attention.hook_out, *wrapped.modules()}
    if any(_has_hooks(p) for p in attention.modules() if isinstance(p, HookPoint) and p not in kept):
        return HOOKED
    if not getattr(hf_model, "_supports_attention_backend", False):
        return f"{type(hf_model).__name__} has no exchangeable attention function"
    config = hf_model.config.get_text_config()
    special = [n for n in SPECIAL if any(getattr(owner, n, None) not in (None, False) for owner in (wrapped, config))]
    if special:
        return f"attention has {special[0]}"
    if wrapped.training:
        return "the layer is in training mode, where it may drop out attention"
    return "" if getattr(wrapped, "is_causal", True) else "attention is not causal"


def _is_replaced(attention: Any, names: Iterable[str]) -> bool:
    """Whether a caller has replaced a method on the instance."""
    methods = [vars(attention)[name] for name in names if name in vars(attention)]
    return any(not isinstance(getattr(method, "__self__", None), _FusedLayer) for method in methods)


def _has_hooks(point: Any) -> bool:
    return bool(point._forward_hooks or point._backward_hooks)


@contextmanager
def fused_attention(
    model: HookedTransformer | TransformerBridge, gradient: PatternGradient | None = None
) -> Iterator[None]:
    """Within, the layers that are not in `pattern_layers(model)` compute fused attention; afterwards they are restored.

    Args:
        model: any supported model. Contexts may be nested; the outer one counts.
        gradient: who reads A * dL/dA of each fused layer; None: nobody.
    """
    patterns, padding = pattern_layers(model), _Padding()
    methods = METHODS if isinstance(model, HookedTransformer) else ("forward",)
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
        self._layer, self._attention, self._gradient, self._padding = layer, attention, gradient, padding
        self._queries_and_keys: tuple[Tensor, Tensor]
        self._visible: Tensor | None = None

    def calculate_attention_scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Keep queries and keys [batch, pos, head, d_head]; a placeholder stands for the scores."""
        self._queries_and_keys = q.transpose(1, 2), k.transpose(1, 2)
        return q.new_zeros(1, 1, 1, 1)

    def apply_causal_mask(self, attn_scores: Tensor, past_kv_pos_offset: int = 0, attention_mask: Any = None) -> Tensor:
        """Keep the padding; return the placeholder."""
        self._visible = self._padding.visible_keys(attention_mask)
        return attn_scores

    def calculate_z_scores(self, v: Tensor, pattern: Tensor) -> Tensor:
        """Weight the values [batch, pos, head, d_head]; `pattern` is the placeholder."""
        attention, (q, k) = self._attention, self._queries_and_keys
        del self._queries_and_keys
        window = attention.cfg.window_size if attention.attn_type == "local" else None
        inputs = AttentionInputs(self._layer, q, k, v.transpose(1, 2), 1 / attention.attn_scale, window, self._visible)
        return cast(Tensor, attention.hook_z(self.attend(inputs).transpose(1, 2)))

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

    def attend(self, inputs: AttentionInputs) -> Float[Tensor, "batch head dest d_head"]:
        """Compute z; where a caller reads the products, with a backward pass that has them."""
        if self._gradient is None or not torch.is_grad_enabled():
            return inputs.attend()
        root = self._gradient.graph_root
        return cast(Tensor, _Attention.apply(inputs.q, inputs.k, inputs.v, inputs, self._gradient, root))

    @property
    def layer(self) -> int:
        """Index of the layer."""
        return self._layer


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


class _Attention(torch.autograd.Function):
    """Fused attention whose backward pass hands out A * dL/dA.

    Tensors are saved as autograd saves any, so that under gradient checkpointing they are the recomputed ones.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, inputs: AttentionInputs, gradient: PatternGradient, root: Tensor
    ) -> Tensor:
        z = inputs.attend()
        ctx.save_for_backward(q, k, v, z)
        ctx.gradient, ctx.rest = gradient, (inputs.layer, inputs.scale, inputs.window, inputs.visible)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, z = ctx.saved_tensors
        layer, *rest = ctx.rest
        backward = _Backward(AttentionInputs(layer, q, k, v, *rest), z, grads[0], any(ctx.needs_input_grad[:3]))
        blocks = backward.blocks(ctx.gradient.first_query)
        with torch.autocast(q.device.type, enabled=False):
            ctx.gradient.read(layer, blocks)
            for _ in blocks:  # the gradients need the blocks that were not read
                pass
        return *backward.slopes(), None, None, torch.zeros_like(ctx.gradient.graph_root)


def rows_of_block(n_maps: int, n_src: int) -> int:
    """The queries of one block of the backward pass: eight blocks, or more where a block would be too large.

    Args:
        n_maps: batch times heads.
        n_src: keys of each query.
    """
    return max(MIN_ROWS, min(n_src // 8, BLOCK_SIZE // (n_maps * n_src)))


class _Backward:
    """The backward pass of one layer's attention, a block of queries at a time, at least in float32.

    Heads that share a key are joined, as queries of one product: [batch * kv_head, group, pos, d_head].

    Args:
        inputs: of the layer.
        z: its output.
        grad: dL/dz.
        needs_slopes: whether the gradients of q, k and v are computed.
    """

    def __init__(self, inputs: AttentionInputs, z: Tensor, grad: Tensor, needs_slopes: bool):
        self._inputs = inputs
        self._q, self._grad = self._joined(inputs.q) * inputs.scale, self._joined(grad)
        self._k, self._v = self._joined(inputs.k)[:, 0], self._joined(inputs.v)[:, 0]
        # the mean of dL/dA of each query, weighted by A
        self._mean_slope = (self._grad * self._joined(z)).sum(-1, keepdim=True)
        tensors = (self._q, self._k, self._v) if needs_slopes else ()
        self._slopes = [torch.zeros_like(x) for x in tensors]

    def _joined(self, x: Tensor) -> Float[Tensor, "row group pos d_head"]:
        precise = x if x.dtype == torch.float64 else x.float()
        return precise.reshape(-1, x.shape[1] // self._inputs.k.shape[1], *x.shape[2:])

    def blocks(self, first_query: int) -> Iterator[ProductBlock]:
        """A * dL/dA; the gradients of a block are added when the next one is asked for.

        Args:
            first_query: positions before it are in no block.
        """
        inputs, n_dest = self._inputs, self._inputs.q.shape[2]
        batch, n_heads = inputs.q.shape[:2]
        n_rows = rows_of_block(batch * n_heads, inputs.k.shape[2])
        is_later = torch.ones(n_rows, n_rows, dtype=torch.bool, device=self._q.device).triu(1)
        first = min(n_dest, max(0, first_query - inputs.n_before))
        bounds = sorted({*range(0, first if self._slopes else 0, n_rows), *range(first, n_dest, n_rows), n_dest})
        for start, stop in pairwise(bounds):
            rows, n = slice(start, stop), stop - start
            columns, attends = inputs.sources(start, stop)
            shape = batch, n_heads, n, columns.stop - columns.start
            pattern = (self._q[:, :, rows].flatten(1, 2) @ self._k[:, columns].mT).view(shape)
            if inputs.is_causal:  # only the block's own positions are hidden from some of its queries
                pattern[..., -n:].masked_fill_(is_later[:n, :n], -torch.inf)
            elif attends is not None:
                pattern.masked_fill_(~attends, -torch.inf)
            pattern = pattern.softmax(-1)
            if inputs.visible is not None:
                pattern.nan_to_num_(0.0)  # a query of padding has no key
            products = (self._grad[:, :, rows].flatten(1, 2) @ self._v[:, columns].mT).view(shape).mul_(pattern)
            if start >= first:
                yield ProductBlock(inputs.n_before + start, columns, products)
            if self._slopes:
                self._add_slopes(rows, columns, pattern, products)

    def _add_slopes(self, rows: slice, columns: slice, pattern: Tensor, products: Tensor) -> None:
        """Add the gradients through one block; `products` becomes the gradient of its scores."""
        q_slope, k_slope, v_slope = self._slopes
        joined = self._q.shape[0], -1, products.shape[-1]
        pattern, by_score = pattern.view(joined), products.view(joined)
        by_score.addcmul_(pattern, self._mean_slope[:, :, rows].flatten(1, 2), value=-1)
        q_slope[:, :, rows] = (by_score @ self._k[:, columns]).view_as(q_slope[:, :, rows])
        k_slope[:, columns].baddbmm_(by_score.mT, self._q[:, :, rows].flatten(1, 2))
        v_slope[:, columns].baddbmm_(pattern.mT, self._grad[:, :, rows].flatten(1, 2))

    def slopes(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of q, k and v, after all blocks; None where they are not needed."""
        if not self._slopes:
            return None, None, None
        inputs, (q_slope, k_slope, v_slope) = self._inputs, self._slopes
        pairs = ((q_slope.mul_(inputs.scale), inputs.q), (k_slope, inputs.k), (v_slope, inputs.v))
        return tuple(slope.view(x.shape).to(x.dtype) for slope, x in pairs)  # type: ignore[return-value]


def _attention_function(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function that transformers calls, with the mask [batch, src] of Flash Attention."""
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise DPCInterpError(
            f"{type(module).__name__} computes attention with {unknown[0]}, which fused attention does not have; put a "
            "hook on blocks.0.attn.hook_pattern, so that patterns are computed, and report the model"
        )
    fused: _FusedLayer = vars(module)[INTERFACE]
    scale, window = kwargs.get("scaling") or query.shape[-1] ** -0.5, kwargs.get("sliding_window")
    visible = None if attention_mask is None else attention_mask.bool()  # the mask is None where nothing is padded
    z = fused.attend(AttentionInputs(fused.layer, query, key, value, scale, window, visible))
    return z.transpose(1, 2).contiguous(), None


AttentionInterface.register(INTERFACE, _attention_function)
AttentionMaskInterface.register(INTERFACE, flash_attention_mask)
