"""Convert a Hugging Face model to a `HookedTransformer`: the Llama, Mistral, Qwen2 and GPT-2 families.

The weights go through TransformerLens's own conversions. This module translates the configuration, and raises
`DPCInterpError` for each part that a HookedTransformer cannot represent. Nothing is folded or centred. The context
length is the model's own: TransformerLens 3.9 extends masks and rotary tables on demand, so a long context costs no
memory.

TransformerLens 3.9 multiplies by the transposes of its weights and makes each transpose contiguous first: a copy of
every matrix in every pass. In decoding, where a pass reads one token per row, the copies cost nearly as much as the
products. `make_weights_contiguous_as_read` stores each weight in the order in which the forward pass reads it, so that
it is not copied. Shapes, values and results stay the same bit for bit; only strides change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gpt2_weights,
    convert_llama_weights,
    convert_mistral_weights,
    convert_qwen2_weights,
)
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import PreTrainedConfig, PreTrainedModel

from dpc_interp.errors import DPCInterpError

FAMILIES: dict[str, tuple[str, Callable[..., dict[str, torch.Tensor]]]] = {
    "llama": ("LlamaForCausalLM", convert_llama_weights),
    "mistral": ("MistralForCausalLM", convert_mistral_weights),
    "qwen2": ("Qwen2ForCausalLM", convert_qwen2_weights),
    "gpt2": ("GPT2LMHeadModel", convert_gpt2_weights),
}
"""Hugging Face's `model_type` -> its architecture and the conversion of its weights."""

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


def to_hooked_transformer(hf_model: PreTrainedModel, device: str, dtype: torch.dtype) -> HookedTransformer:
    """Convert a Hugging Face model, with unprocessed weights.

    Args:
        hf_model: a model of one of `FAMILIES`.
        device: device of the new model.
        dtype: dtype of its weights.

    Returns:
        The model, without a tokenizer.

    Raises:
        DPCInterpError: see `hooked_config`.
    """
    cfg = hooked_config(hf_model.config, device, dtype)
    _, convert = FAMILIES[hf_model.config.model_type]
    model = HookedTransformer(cfg, move_to_device=True)
    # at once: `load_and_process_state_dict` loads each weight apart, and visits every module for each
    missing = model.load_state_dict(convert(hf_model, cfg), strict=False).missing_keys
    # biases are created as zeros, matrices uninitialised
    matrices = [name for name in missing if name.rpartition(".")[2].lstrip("_").startswith("W_")]
    if matrices:
        raise DPCInterpError(f'TransformerLens converts no {matrices[0]} of this model; try backend="bridge"')
    return model


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


def hooked_config(config: PreTrainedConfig, device: str, dtype: torch.dtype) -> HookedTransformerConfig:
    """Translate a Hugging Face configuration to TransformerLens's.

    Args:
        config: of a model of one of `FAMILIES`.
        device: device of the new model.
        dtype: dtype of its weights.

    Raises:
        DPCInterpError: another family, or a part that a HookedTransformer cannot represent.
    """
    if config.model_type not in FAMILIES:
        _raise_unsupported(
            f"this is a {config.model_type!r} model, and only {', '.join(FAMILIES)} load as HookedTransformers"
        )
    options = _gpt2(config) if config.model_type == "gpt2" else _rotary_family(config)
    if options["act_fn"] not in SUPPORTED_ACTIVATIONS:
        _raise_unsupported(f"this model's activation is {options['act_fn']!r}, which HookedTransformer does not have")
    return HookedTransformerConfig(
        model_name=Path(str(config.name_or_path)).name or config.model_type,
        original_architecture=FAMILIES[config.model_type][0],
        d_vocab=config.vocab_size,
        device=device,
        dtype=dtype,
        init_weights=False,  # they are loaded
        **options,
    )


def _rotary_family(config: Any) -> dict[str, Any]:
    """Options of Llama, Mistral and Qwen2: RMSNorm, gated MLP, rotary positions, grouped queries, sliding window."""
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        _raise_unsupported("this model has biases (attention_bias or mlp_bias), which the conversion would drop")
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    # Llama's conversion writes grouped keys only if there are fewer than heads; the other two always write them
    grouped = n_kv != n_heads or config.model_type != "llama"
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": n_heads,
        "n_key_value_heads": n_kv if grouped else None,
        "d_head": d_head,
        "d_mlp": config.intermediate_size,
        "n_ctx": config.max_position_embeddings,
        "act_fn": config.hidden_act,
        "normalization_type": "RMS",
        "eps": config.rms_norm_eps,
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": d_head,
        "rotary_adjacent_pairs": False,
        **_rope(config),
        **_window(config),
    }


def _rope(config: Any) -> dict[str, Any]:
    """Options of the rotary embedding: its base, and Llama 3.1's scaling (NTK by parts)."""
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if rope.get("rope_theta") is None:
        _raise_unsupported("this model's config names no base of the rotary embedding (rope_theta)")
    if kind not in ("default", "llama3"):
        _raise_unsupported(
            f"this model scales its rotary embedding by {kind!r}; only 'default' and 'llama3' are supported"
        )
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        _raise_unsupported("this model rotates only part of each head (partial_rotary_factor)")
    base = {"rotary_base": float(rope["rope_theta"])}
    if kind == "default":
        return base
    return base | {
        "use_NTK_by_parts_rope": True,
        "NTK_by_parts_factor": rope["factor"],
        "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
        "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
        "NTK_original_ctx_len": rope["original_max_position_embeddings"],
    }


def _window(config: Any) -> dict[str, Any]:
    """Options of the sliding window, if the model has one; `layer_types` lists the layers that use it."""
    window = getattr(config, "sliding_window", None)
    if not window:
        return {}
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    local = ["local" if kind == "sliding_attention" else "global" for kind in kinds]
    return {"use_local_attn": True, "window_size": window, "attn_types": local}


def _gpt2(config: Any) -> dict[str, Any]:
    """Options of GPT-2: LayerNorm, learned positions, biases in every layer."""
    if config.add_cross_attention:
        _raise_unsupported("this model attends to an encoder (add_cross_attention)")
    return {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_heads": config.n_head,
        "d_head": config.n_embd // config.n_head,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "n_ctx": config.n_positions,
        "act_fn": config.activation_function,
        "normalization_type": "LN",
        "eps": config.layer_norm_epsilon,
        "positional_embedding_type": "standard",
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def _raise_unsupported(reason: str) -> NoReturn:
    raise DPCInterpError(f'{reason}; try backend="bridge"')
