"""A Hugging Face model as a `HookedTransformer`: the Llama, Mistral, Qwen2 and GPT-2 families.

The weights go through TransformerLens's own conversions; here the configuration is said in TransformerLens's words, and
what it has no word for is refused by name. Nothing is folded or centred. The context length is the model's own:
TransformerLens 3.9 makes masks and rotary tables as long as they are needed, so a long one costs nothing.
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
"""Hugging Face's `model_type` -> its architecture, and the conversion of its weights."""


def hooked(hf_model: PreTrainedModel, device: str, dtype: torch.dtype) -> HookedTransformer:
    """The same model, its weights unprocessed, without a tokenizer.

    Raises:
        DPCInterpError: see `hooked_config`.
    """
    cfg = hooked_config(hf_model.config, device, dtype)
    _, convert = FAMILIES[hf_model.config.model_type]
    model = HookedTransformer(cfg, move_to_device=True)
    model.load_and_process_state_dict(
        convert(hf_model, cfg),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model


def hooked_config(config: PreTrainedConfig, device: str, dtype: torch.dtype) -> HookedTransformerConfig:
    """The TransformerLens configuration of a Hugging Face configuration.

    Raises:
        DPCInterpError: of another family, or with a part that a HookedTransformer lacks.
    """
    if config.model_type not in FAMILIES:
        _refuse(f"this is a {config.model_type!r} model, and HookedTransformers are made of {', '.join(FAMILIES)}")
    options = _gpt2(config) if config.model_type == "gpt2" else _rotary_family(config)
    if options["act_fn"] not in SUPPORTED_ACTIVATIONS:
        _refuse(f"this model's activation is {options['act_fn']!r}, which HookedTransformer lacks")
    return HookedTransformerConfig(
        model_name=Path(str(config.name_or_path)).name or config.model_type,
        original_architecture=FAMILIES[config.model_type][0],
        d_vocab=config.vocab_size,
        device=device,
        dtype=dtype,
        **options,
    )


def _rotary_family(config: Any) -> dict[str, Any]:
    """Llama, Mistral and Qwen2: RMSNorm, gated MLP, rotary positions, grouped queries, for some a sliding window."""
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        _refuse("this model has biases (attention_bias or mlp_bias), which would be dropped")
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    # Llama's conversion takes plain heads for plain; the other two write grouped queries always.
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
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "llama3") or rope.get("rope_theta") is None:
        _refuse(f"this model scales its rotary embedding by {kind!r}; 'default' and 'llama3' are known")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        _refuse("this model rotates a part of each head only (partial_rotary_factor)")
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
    window = getattr(config, "sliding_window", None)
    if not window:
        return {}
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    local = ["local" if kind == "sliding_attention" else "global" for kind in kinds]
    return {"use_local_attn": True, "window_size": window, "attn_types": local}


def _gpt2(config: Any) -> dict[str, Any]:
    """GPT-2: LayerNorm with biases, learned positions, biases throughout."""
    if config.add_cross_attention:
        _refuse("this model attends to an encoder (add_cross_attention)")
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


def _refuse(reason: str) -> NoReturn:
    raise DPCInterpError(f'{reason}; try backend="bridge"')
