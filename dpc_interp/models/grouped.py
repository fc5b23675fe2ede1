"""The two products of grouped-query attention, with each key and value read once for all heads of its group.

TransformerLens 3.9 repeats keys and values for every query head and copies them again for the product. In decoding,
where a pass has one query per row, that is most of the attention's time. Here the queries of a group become rows of one
matrix, which is multiplied by the group's keys or values. Hook points fire as before; numbers agree to rounding.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.activation_functions import apply_softcap


def is_grouped(attention: Any) -> bool:
    """Whether a layer has fewer key heads than query heads and does not expand them to one per query head.

    Args:
        attention: an attention layer of a `HookedTransformer`.
    """
    shares_keys = getattr(attention, "repeat_kv_heads", 1) > 1  # only `GroupedQueryAttention` has the attribute
    return shares_keys and not attention.cfg.ungroup_grouped_query_attention


def grouped_attention_scores(
    attention: Any, q: Float[Tensor, "batch dest head d_head"], k: Float[Tensor, "batch src kv_head d_head"]
) -> Float[Tensor, "batch head dest src"]:
    """Attention scores before the mask; replaces the layer's `calculate_attention_scores`.

    Args:
        attention: the attention layer, for its scale and soft cap.
        q: queries, one head each.
        k: keys, one head per group.
    """
    n_dest, n_kv = q.shape[1], k.shape[2]
    scaled = q / attention.attn_scale  # TransformerLens divides the scores, which are more numbers than the queries
    by_group = rearrange(scaled, "batch dest (kv group) d_head -> batch kv (group dest) d_head", kv=n_kv)
    products = by_group @ k.permute(0, 2, 3, 1)
    by_head = rearrange(products, "batch kv (group dest) src -> batch (kv group) dest src", dest=n_dest)
    return apply_softcap(by_head, attention.cfg.attn_scores_soft_cap)


def grouped_weighted_values(
    attention: Any, v: Float[Tensor, "batch src kv_head d_head"], pattern: Float[Tensor, "batch head dest src"]
) -> Float[Tensor, "batch dest head d_head"]:
    """Values weighted by the attention pattern, through `hook_z`; replaces the layer's `calculate_z_scores`.

    Args:
        attention: the attention layer, for its `hook_z`.
        v: values, one head per group.
        pattern: attention pattern of each query head.
    """
    n_dest, n_kv = pattern.shape[2], v.shape[2]
    by_group = rearrange(pattern, "batch (kv group) dest src -> batch kv (group dest) src", kv=n_kv)
    z = by_group @ v.transpose(1, 2)
    return attention.hook_z(rearrange(z, "batch kv (group dest) d_head -> batch dest (kv group) d_head", dest=n_dest))
