"""Where a model comes from: the bundled reasoner, a local folder of the Llama family, or a name TransformerLens knows.

Every model is returned frozen, in eval mode, with all folding and centring off: its activations are the trained model's
own.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.loading_from_pretrained import get_official_model_name
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from dpc_interp.errors import DPCInterpError, UnknownNameError

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"reasoner": ASSETS / "reasoner"}
"""Models that ship with the package."""


def load_model(name: str, *, device: str | None = None, dtype: torch.dtype = torch.float32) -> HookedTransformer:
    """Load a model as a frozen `HookedTransformer`.

    Args:
        name: `reasoner`; a local folder of a Llama-family model in Hugging Face's layout; or an official name of
            TransformerLens.
        device: `cpu`, `cuda`, ...; None: a GPU where there is one.
        dtype: of the weights. Saliency is computed in float32 whatever it is.

    Raises:
        UnknownNameError: neither bundled, nor a folder, nor a name that TransformerLens knows.
        DPCInterpError: the folder is no Llama-family model, or the weights cannot be fetched.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = BUNDLED.get(name, Path(name))
    if folder.is_dir():
        model = _load_folder(folder, device, dtype)
    else:
        model = _load_official(name, device, dtype)
    model.eval()
    model.requires_grad_(False)
    return model


def _load_folder(folder: Path, device: str, dtype: torch.dtype) -> HookedTransformer:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise DPCInterpError(f"{folder} holds no config.json; give the folder of a Hugging Face model")
    try:
        family = json.loads(config_file.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{config_file} is not JSON ({error.msg}); fetch the model again") from error
    if family != LlamaConfig.model_type:
        raise DPCInterpError(f"{folder} is a {family!r} model; local folders of the 'llama' family can be loaded")
    try:
        hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except OSError as error:
        raise DPCInterpError(f"{folder} cannot be read ({_first_line(error)}); fetch the model again") from error
    cfg = llama_config(LlamaConfig.from_pretrained(folder, local_files_only=True), device, dtype)
    model = HookedTransformer(cfg, tokenizer=tokenizer, move_to_device=True)
    model.load_and_process_state_dict(
        convert_llama_weights(hf_model, cfg),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model


def _load_official(name: str, device: str, dtype: torch.dtype) -> HookedTransformer:
    try:
        get_official_model_name(name)
    except ValueError as error:
        raise UnknownNameError("model", name, [*BUNDLED, "a local folder", "any name TransformerLens lists"]) from error
    try:
        return HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
    except OSError as error:
        raise DPCInterpError(
            f"the weights of {name!r} cannot be fetched ({_first_line(error)}); download them and give the folder"
        ) from error


def _first_line(error: OSError) -> str:
    return str(error).partition("\n")[0][:120]


def llama_config(config: LlamaConfig, device: str, dtype: torch.dtype) -> HookedTransformerConfig:
    """The TransformerLens configuration of a Hugging Face Llama configuration."""
    rope = config.rope_parameters or {}
    theta = rope.get("rope_theta")
    if theta is None or rope.get("rope_type", "default") != "default":
        raise DPCInterpError("this model scales its rotary embedding; load it by its official TransformerLens name")
    if config.attention_bias or config.mlp_bias:
        raise DPCInterpError(
            "this model has biases, which would be dropped here; load it by its official TransformerLens name"
        )
    n_kv, d_head = config.num_key_value_heads, config.head_dim or config.hidden_size // config.num_attention_heads
    return HookedTransformerConfig(
        model_name=Path(str(config.name_or_path)).name or "llama",
        original_architecture="LlamaForCausalLM",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_key_value_heads=n_kv if n_kv != config.num_attention_heads else None,
        d_head=d_head,
        d_mlp=config.intermediate_size,
        n_ctx=config.max_position_embeddings,
        d_vocab=config.vocab_size,
        act_fn=config.hidden_act,
        normalization_type="RMS",
        eps=config.rms_norm_eps,
        final_rms=True,
        gated_mlp=True,
        positional_embedding_type="rotary",
        rotary_dim=d_head,
        rotary_base=float(theta),
        rotary_adjacent_pairs=False,
        device=device,
        dtype=dtype,
    )
