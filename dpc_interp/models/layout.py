"""The memory layout of a `HookedTransformer`'s weights: contiguous in the order in which the forward pass reads them.

TransformerLens 3.9 multiplies by the transposes of its weights and makes each transpose contiguous first: a copy of
every matrix in every pass. In decoding, where a pass reads one token per row, the copies cost nearly as much as the
products. A weight whose transpose is contiguous already is not copied. Shapes, values and results stay the same bit for
bit; only strides change.
"""

from __future__ import annotations

from dpc_interp.models.lens import HookedTransformer

# the axes of each weight, in the order in which the forward pass reads them
ATTENTION_ORDERS: dict[str, tuple[int, ...]] = {
    "attn.W_Q": (0, 2, 1),
    "attn.W_K": (0, 2, 1),
    "attn.W_V": (0, 2, 1),
    "attn._W_K": (0, 2, 1),  # `GroupedQueryAttention` stores one matrix per key head
    "attn._W_V": (0, 2, 1),
    "attn.W_O": (2, 0, 1),
}
# a plain MLP multiplies by its weights untransposed
GATED_MLP_ORDERS: dict[str, tuple[int, ...]] = {"mlp.W_gate": (1, 0), "mlp.W_in": (1, 0), "mlp.W_out": (1, 0)}
UNEMBED_ORDERS: dict[str, tuple[int, ...]] = {"unembed.W_U": (1, 0)}


def make_weights_contiguous_as_read(model: HookedTransformer) -> None:
    """Store each weight, in place, so that the order of axes in which it is read is contiguous.

    Args:
        model: the model; its parameters stay the same objects with the same shapes and values.
    """
    gated = model.cfg.gated_mlp and not model.cfg.num_experts  # experts keep their weights under other names
    orders = ATTENTION_ORDERS | UNEMBED_ORDERS | (GATED_MLP_ORDERS if gated else {})
    for name, weight in model.named_parameters():
        order = orders.get(".".join(name.split(".")[-2:]))
        if order is not None:
            inverse = [order.index(axis) for axis in range(len(order))]
            weight.data = weight.data.permute(order).contiguous().permute(inverse)
