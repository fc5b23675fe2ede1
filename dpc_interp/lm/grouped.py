"""The two products of grouped-query attention, each key and value read once by all heads of its group.

TransformerLens 3.9 repeats keys and values for every head and copies them again for the product; in decoding, where a
pass has one query a row, that is most of the attention's time. Hook points fire as before; numbers agree to rounding.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.activation_functions import apply_softcap


def is_grouped(attention: Any) -> bool:
    """Whether a layer has fewer keys than heads, and keeps them so."""
    shared = getattr(attention, "repeat_kv_heads", 1) > 1  # of TransformerLens's GroupedQueryAttention alone
    return shared and not attention.cfg.ungroup_grouped_query_attention


def scores(
    attention: Any, q: Float[Tensor, "batch dest head d_head"], k: Float[Tensor, "batch src kv_head d_head"]
) -> Float[Tensor, "batch head dest src"]:
    """What the layer's `calculate_attention_scores` gives."""
    n_dest, n_kv = q.shape[1], k.shape[2]
    scaled = q / attention.attn_scale  # fewer numbers than the products, which are divided by it otherwise
    by_group = rearrange(scaled, "batch dest (kv group) d_head -> batch kv (group dest) d_head", kv=n_kv)
    products = by_group @ k.permute(0, 2, 3, 1)
    by_head = rearrange(products, "batch kv (group dest) src -> batch (kv group) dest src", dest=n_dest)
    return apply_softcap(by_head, attention.cfg.attn_scores_soft_cap)


def mix(
    attention: Any, v: Float[Tensor, "batch src kv_head d_head"], pattern: Float[Tensor, "batch head dest src"]
) -> Float[Tensor, "batch dest head d_head"]:
    """What the layer's `calculate_z_scores` gives."""
    n_dest, n_kv = pattern.shape[2], v.shape[2]
    by_group = rearrange(pattern, "batch (kv group) dest src -> batch kv (group dest) src", kv=n_kv)
    z = by_group @ v.transpose(1, 2)
    return attention.hook_z(rearrange(z, "batch kv (group dest) d_head -> batch dest (kv group) d_head", dest=n_dest))
