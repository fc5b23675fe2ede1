"""The memory layout of a `HookedTransformer`'s weights: each as its forward pass reads it.

TransformerLens 3.9 multiplies by the transposes of its weights and makes each of them contiguous first, as Hugging
Face's linear layers have them: a copy of every matrix in every pass. In decoding, where a pass reads one token a row,
the copies cost nearly as much as the products. A weight that lies in memory as it is read is not copied. Shapes, values
and results stay the same bit for bit; only strides change.
"""

from __future__ import annotations

from dpc_interp.lm.lens import HookedTransformer

ATTENTION: dict[str, tuple[int, ...]] = {
    "attn.W_Q": (0, 2, 1),
    "attn.W_K": (0, 2, 1),
    "attn.W_V": (0, 2, 1),
    "attn._W_K": (0, 2, 1),  # of grouped queries
    "attn._W_V": (0, 2, 1),
    "attn.W_O": (2, 0, 1),
}
GATED_MLP: dict[str, tuple[int, ...]] = {"mlp.W_gate": (1, 0), "mlp.W_in": (1, 0), "mlp.W_out": (1, 0)}
"""A plain MLP reads its weights as they stand."""
UNEMBED: dict[str, tuple[int, ...]] = {"unembed.W_U": (1, 0)}


def store_as_read(model: HookedTransformer) -> None:
    """Put each weight into memory with its axes in the order in which it is read."""
    gated = model.cfg.gated_mlp and not model.cfg.num_experts
    orders = ATTENTION | UNEMBED | (GATED_MLP if gated else {})
    for name, weight in model.named_parameters():
        order = orders.get(".".join(name.split(".")[-2:]))
        if order is not None:
            back = [order.index(axis) for axis in range(len(order))]
            weight.data = weight.data.permute(order).contiguous().permute(back)
