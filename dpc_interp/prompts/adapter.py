"""Read and write PEFT prompt-tuning adapters: `adapter_config.json` next to `adapter_model.safetensors`.

The only tensor is `prompt_embeddings` [n_virtual, d_model]. The older `adapter_model.bin` is read as well, but only as
tensors: a pickle that would run code is rejected. An adapter that holds anything PEFT would use and a soft prompt
cannot represent (another adapter type, a second submodule, trained embeddings) is rejected with the reason, because
ignoring it would change the model's outputs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.hub import hub_is_reachable

CONFIG, RECIPE = "adapter_config.json", "recipe.json"
WEIGHTS, LEGACY_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
VECTORS = "prompt_embeddings"
"""Name of the tensor that PEFT saves for a prompt-tuning adapter."""

MERGE = "it changes the model's weights: merge it (merge_and_unload), save that model and give it to load_model"
NOT_A_PROMPT = {
    "PREFIX_TUNING": "it writes keys and values into every layer; tune with PROMPT_TUNING",
    "P_TUNING": "an encoder network makes its vectors; tune with PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING": "it makes one prompt per task by a product; tune one PROMPT_TUNING prompt per task",
    "ADAPTION_PROMPT": "it enters inside the attention layers; tune with PROMPT_TUNING",
    "CPT": "it embeds the examples of a context; tune with PROMPT_TUNING",
    "LORA": MERGE,
    "ADALORA": MERGE,
    "IA3": MERGE,
    "LOHA": MERGE,
    "LOKR": MERGE,
}
"""PEFT type -> why such an adapter is not a soft prompt, and what to do about it."""


def write_adapter(folder: Path, vectors: Float[Tensor, "n_virtual d_model"], base_model: str) -> None:
    """Write vectors as an adapter that `PeftModel.from_pretrained` loads.

    Args:
        folder: where the adapter is written; created if it does not exist.
        vectors: vectors of the soft prompt; stored in float32.
        base_model: name or folder of the Hugging Face model that the prompt was tuned on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "num_virtual_tokens": vectors.shape[0],
        "token_dim": vectors.shape[1],
        "num_transformer_submodules": 1,
        # PEFT would need a tokenizer for "TEXT"; the saved vectors overwrite the initial ones either way
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    save_file({VECTORS: vectors.detach().float().cpu().contiguous()}, folder / WEIGHTS)


def read_adapter(folder: Path) -> tuple[Float[Tensor, "n_virtual d_model"], str]:
    """Read the vectors of an adapter and the name of its base model.

    Args:
        folder: with the configuration and the weights.

    Returns:
        The vectors, float32 on the CPU, and the name of the base model ("" where the configuration has none).

    Raises:
        DPCInterpError: another type of adapter, or files that are missing, broken or hold more than a prompt.
        ShapeError: the vectors are not of the shape that the configuration states.
    """
    config = read_config(folder)
    file = next((folder / name for name in (WEIGHTS, LEGACY_WEIGHTS) if (folder / name).is_file()), None)
    if file is None:
        raise DPCInterpError(f"{folder} lacks {WEIGHTS}; give a PEFT adapter folder")
    weights = _read_weights(file)
    vectors = weights.pop(VECTORS, None)
    if not isinstance(vectors, Tensor) or not vectors.is_floating_point():
        raise DPCInterpError(f"{file} has no floating-point tensor {VECTORS!r}; save the adapter again with PEFT")
    if weights:
        raise DPCInterpError(
            f"{file} also contains {str(next(iter(weights)))[:60]!r}, which is not part of a soft prompt; "
            "save the adapter again with save_embedding_layers=False"
        )
    stated_shape = [config.get("num_virtual_tokens"), config.get("token_dim")]
    shape = list(vectors.shape)
    # the configuration may leave either size open
    if len(shape) != 2 or 0 in shape or any(n not in (None, size) for n, size in zip(stated_shape, shape, strict=True)):
        raise ShapeError(
            f"{file} has vectors of shape {shape}, {CONFIG} states {stated_shape}; save the adapter again with PEFT"
        )
    return vectors.float(), str(config.get("base_model_name_or_path") or "")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a prompt-tuning adapter for a decoder-only model.

    Args:
        folder: folder of the adapter.

    Returns:
        The content of `adapter_config.json`.

    Raises:
        DPCInterpError: no configuration, or one of another type of adapter.
    """
    if not (folder / CONFIG).is_file():
        raise DPCInterpError(f"{folder} lacks {CONFIG}; give a PEFT adapter folder")
    config = read_json(folder / CONFIG)
    peft_type = config.get("peft_type")
    if peft_type != "PROMPT_TUNING":
        reason = NOT_A_PROMPT.get(str(peft_type), "only PROMPT_TUNING adapters put vectors before the input")
        raise DPCInterpError(f"{folder} is a {str(peft_type)[:40]} adapter; {reason}")
    # PEFT's own default where the configuration leaves the number open
    submodules = config.get("num_transformer_submodules") or 1 + (config.get("task_type") == "SEQ_2_SEQ_LM")
    if submodules != 1:
        raise DPCInterpError(
            f"{folder} has vectors for {submodules} submodules (an encoder and a decoder); "
            "give an adapter of a decoder-only model (num_transformer_submodules 1)"
        )
    return config


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: UTF-8 text.

    Raises:
        DPCInterpError: the file is not JSON, or not an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise DPCInterpError(f"{file} is not JSON; save the adapter again") from error
    if not isinstance(content, dict):
        raise DPCInterpError(f"{file} is not a JSON object; save the adapter again")
    return content


def _read_weights(file: Path) -> dict[str, Any]:
    try:
        if file.name == WEIGHTS:
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise DPCInterpError(
            f"{file} is a pickle that could run code and was not loaded; ask its author for {WEIGHTS}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise DPCInterpError(f"{file} is broken; copy or save the adapter again") from error
    if not isinstance(weights, dict):
        raise DPCInterpError(f"{file} does not contain a state dict; save the adapter again with PEFT")
    return weights


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form of a repository on the Hugging Face Hub, `owner/adapter`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def fetch_adapter(name: str) -> Path:
    """Download an adapter from the Hugging Face Hub, or find it in the local cache.

    Args:
        name: name of the repository, `owner/adapter`.

    Returns:
        The folder of the adapter in the cache.

    Raises:
        DPCInterpError: another type of adapter, or the Hub cannot be reached or has no such adapter.
    """
    cache_only = not hub_is_reachable()
    try:
        # configuration first: another type of adapter is rejected before its weights are downloaded
        read_config(Path(snapshot_download(name, allow_patterns=[CONFIG, RECIPE], local_files_only=cache_only)))
        files = [CONFIG, RECIPE, WEIGHTS, LEGACY_WEIGHTS]
        return Path(snapshot_download(name, allow_patterns=files, local_files_only=cache_only))
    except (OSError, HFValidationError) as error:
        raise DPCInterpError(
            f"{name!r} is not a local folder and cannot be fetched from the Hub ({type(error).__name__}); "
            "download the adapter and give its folder"
        ) from error
