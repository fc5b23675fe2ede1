"""The plain Hugging Face model that a hooked model is held against, found without a network."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from dpc_interp.lm.gguf import read_gguf
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.lens import HookedTransformer


def is_wrapped(hf_model: PreTrainedModel) -> bool:
    """Whether a bridge has put its own components into this model."""
    return any(name.endswith("_original_component") for name, _ in hf_model.named_modules())


def reference_of(model: HookedModel) -> tuple[PreTrainedModel | None, str]:
    """A Hugging Face model to compare with and where it comes from; without one, why there is none."""
    if not isinstance(model, HookedTransformer):
        return unwrapped(model.original_model), "its own weights in a plain Hugging Face model"
    # the tokenizer comes from where the model does and keeps the whole path; of the model only a name is left
    for path in (str(getattr(model.tokenizer, "name_or_path", "")), str(model.cfg.model_name)):
        try:
            loaded = _read_again(path, model)
        except (OSError, ValueError):  # nothing there, or nothing that transformers reads
            continue
        if loaded is not None:
            return loaded.to(model.cfg.device).eval(), path
    return None, "its Hugging Face model is not found on this machine; give hf_model="


def _read_again(path: str, model: HookedTransformer) -> Any:
    """The Hugging Face model at `path`; None: it is another model than the hooked one."""
    if path.endswith(".gguf"):
        return read_gguf(Path(path), model.cfg.dtype, attn_implementation="eager")[0]
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    shape = (model.cfg.n_layers, model.cfg.d_model, model.cfg.d_vocab)
    if (config.num_hidden_layers, config.hidden_size, config.vocab_size) != shape:
        return None
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=model.cfg.dtype, local_files_only=True, attn_implementation="eager"
    )


def unwrapped(original: Any) -> PreTrainedModel:
    """A plain model of the configuration and weights (shared, not copied) that a bridge wraps in place."""
    with no_init_weights():
        plain = type(original)(deepcopy(original.config))
    held = torch.nn.Module.state_dict(original)
    held = {name.replace("_original_component.", ""): weight for name, weight in held.items()}
    plain.load_state_dict({name: held[name] for name in plain.state_dict()}, assign=True)
    plain.set_attn_implementation("eager")
    return plain.to(original.device).eval()
