"""Find the plain Hugging Face model that a hooked model is compared with, without a network."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from dpc_interp.models.checkpoints import read_gguf
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.lens import HookedTransformer


class Reference(NamedTuple):
    """A model to compare with.

    Attributes:
        hf_model: the Hugging Face model; None: none was found on this machine.
        source: where it comes from; without a model, why there is none and what to do.
    """

    hf_model: PreTrainedModel | None
    source: str


def is_wrapped(hf_model: PreTrainedModel) -> bool:
    """Whether a `TransformerBridge` has replaced components of this model by its own."""
    return any(name.endswith("_original_component") for name, _ in hf_model.named_modules())


def find_reference(model: HookedModel) -> Reference:
    """Find the Hugging Face model that a hooked model should equal.

    Args:
        model: a bridge, which is compared with a plain model of the weights it wraps; or a `HookedTransformer`, whose
            Hugging Face model is loaded again from the path or name that it records.

    Returns:
        The reference, without a model where none is found.
    """
    if not isinstance(model, HookedTransformer):
        return Reference(unwrap(model.original_model), "its own weights in a plain Hugging Face model")
    # the tokenizer is loaded from the same place and records the full path; cfg.model_name is only the last part of it
    for path in (str(getattr(model.tokenizer, "name_or_path", "")), str(model.cfg.model_name)):
        try:
            hf_model = _load_same_shape(path, model)
        except (OSError, ValueError):  # no such path, or nothing that transformers can read
            continue
        if hf_model is not None:
            return Reference(hf_model.to(model.cfg.device).eval(), path)
    return Reference(None, "its Hugging Face model was not found on this machine; give hf_model=")


def _load_same_shape(path: str, model: HookedTransformer) -> Any:
    """The Hugging Face model at `path`; None where its shape shows that it is another model."""
    if path.endswith(".gguf"):
        return read_gguf(Path(path), model.cfg.dtype, attn_implementation="eager")[0]
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    shape = (model.cfg.n_layers, model.cfg.d_model, model.cfg.d_vocab)
    if (config.num_hidden_layers, config.hidden_size, config.vocab_size) != shape:
        return None
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=model.cfg.dtype, local_files_only=True, attn_implementation="eager"
    )


def unwrap(wrapped: Any) -> PreTrainedModel:
    """Build a plain model from one whose components a bridge has replaced in place.

    Args:
        wrapped: the `original_model` of a bridge.

    Returns:
        A model of the same configuration and eager attention; its weights are shared with `wrapped`, not copied.
    """
    with no_init_weights():
        plain = type(wrapped)(deepcopy(wrapped.config))
    # the bridge has put an extra level into the name of each weight
    weights = torch.nn.Module.state_dict(wrapped)
    weights = {name.replace("_original_component.", ""): weight for name, weight in weights.items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()}, assign=True)
    plain.set_attn_implementation("eager")
    return plain.to(wrapped.device).eval()
