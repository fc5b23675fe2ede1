"""A prompt-tuning adapter on disk, as PEFT lays it out: `adapter_config.json` beside `adapter_model.safetensors`.

The tensor `prompt_embeddings` [n_virtual, d_model] stands before the input; nothing else is changed. The older
`adapter_model.bin` is read too, as tensors alone: a pickle that would run code is refused. Whatever PEFT would use and
we would drop (another kind of adapter, a second submodule, trained embeddings) is refused by name.
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
from dpc_interp.hub import hub_answers

CONFIG, RECIPE = "adapter_config.json", "recipe.json"
WEIGHTS, LEGACY_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
VECTORS = "prompt_embeddings"

MERGE = "it changes the model's weights: merge it (merge_and_unload), save that model and give it to load_model"
NOT_A_PROMPT = {
    "PREFIX_TUNING": "it writes keys and values into every layer; tune with PROMPT_TUNING",
    "P_TUNING": "an encoder network makes its vectors; tune with PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING": "it makes one prompt a task by a product; tune with PROMPT_TUNING, one prompt a task",
    "ADAPTION_PROMPT": "it enters inside the attention layers; tune with PROMPT_TUNING",
    "CPT": "it embeds the examples of a context; tune with PROMPT_TUNING",
    "LORA": MERGE,
    "ADALORA": MERGE,
    "IA3": MERGE,
    "LOHA": MERGE,
    "LOKR": MERGE,
}
"""Why an adapter of another kind is no soft prompt, and what to do."""


def write_adapter(folder: Path, vectors: Float[Tensor, "n_virtual d_model"], base_model: str) -> None:
    """Write vectors as an adapter that `PeftModel.from_pretrained` loads.

    Args:
        base_model: name or folder of the Hugging Face model that reads the prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "num_virtual_tokens": vectors.shape[0],
        "token_dim": vectors.shape[1],
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    save_file({VECTORS: vectors.detach().float().cpu().contiguous()}, folder / WEIGHTS)


def read_adapter(folder: Path) -> tuple[Float[Tensor, "n_virtual d_model"], str]:
    """Read an adapter's vectors, float32 on the CPU, and the name of its base model ("" where none is given).

    Raises:
        DPCInterpError: another kind of adapter, or files that are missing, broken or hold more than a prompt.
        ShapeError: the vectors are not of the shape that the configuration states.
    """
    config = read_config(folder)
    file = next((folder / name for name in (WEIGHTS, LEGACY_WEIGHTS) if (folder / name).is_file()), None)
    if file is None:
        raise DPCInterpError(f"{folder} lacks {WEIGHTS}; give a PEFT adapter folder")
    weights = _read_weights(file)
    vectors = weights.pop(VECTORS, None)
    if not isinstance(vectors, Tensor) or not vectors.is_floating_point():
        raise DPCInterpError(f"{file} holds no {VECTORS!r} in floating point; save the adapter again with PEFT")
    if weights:
        raise DPCInterpError(
            f"{file} also holds {str(next(iter(weights)))[:60]!r}, which a soft prompt has no place for; "
            "save the adapter again with save_embedding_layers=False"
        )
    stated = [config.get("num_virtual_tokens"), config.get("token_dim")]
    found = list(vectors.shape)
    if len(found) != 2 or 0 in found or any(n not in (None, size) for n, size in zip(stated, found, strict=True)):
        raise ShapeError(f"{file} holds vectors {found}, {CONFIG} states {stated}; save the adapter again with PEFT")
    return vectors.float(), str(config.get("base_model_name_or_path") or "")


def read_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's configuration; refuse any that is not of a prompt-tuning adapter for a decoder."""
    if not (folder / CONFIG).is_file():
        raise DPCInterpError(f"{folder} lacks {CONFIG}; give a PEFT adapter folder")
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type")
    if kind != "PROMPT_TUNING":
        why = NOT_A_PROMPT.get(str(kind), "only PROMPT_TUNING adapters put vectors in front of the input")
        raise DPCInterpError(f"{folder} is a {str(kind)[:40]} adapter; {why}")
    # PEFT's own reading of a configuration that leaves it open
    submodules = config.get("num_transformer_submodules") or 1 + (config.get("task_type") == "SEQ_2_SEQ_LM")
    if submodules != 1:
        raise DPCInterpError(
            f"{folder} has vectors for {submodules} submodules (an encoder and a decoder); "
            "give an adapter of a decoder-only model (num_transformer_submodules 1)"
        )
    return config


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not text
        raise DPCInterpError(f"{file} is not JSON; save the adapter again") from error
    if not isinstance(content, dict):
        raise DPCInterpError(f"{file} is no JSON object; save the adapter again")
    return content


def _read_weights(file: Path) -> dict[str, Any]:
    try:
        if file.name == WEIGHTS:
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise DPCInterpError(
            f"{file} is a pickle of more than tensors and could run code: not read; ask its author for {WEIGHTS}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise DPCInterpError(f"{file} is broken; copy or save the adapter again") from error
    if not isinstance(weights, dict):
        raise DPCInterpError(f"{file} holds no state dict; save the adapter again with PEFT")
    return weights


def is_hub_name(name: str) -> bool:
    """Whether `name` could be that of a repository on the Hugging Face hub, `owner/adapter`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def fetch_adapter(name: str) -> Path:
    """Fetch an adapter from the Hugging Face hub, or from its cache, and return its folder.

    The weights are fetched only where the configuration is a prompt's.

    Raises:
        DPCInterpError: another kind of adapter, or the hub cannot be reached or has no such adapter.
    """
    local = not hub_answers()
    try:
        read_config(Path(snapshot_download(name, allow_patterns=[CONFIG, RECIPE], local_files_only=local)))
        files = [CONFIG, RECIPE, WEIGHTS, LEGACY_WEIGHTS]
        return Path(snapshot_download(name, allow_patterns=files, local_files_only=local))
    except (OSError, HFValidationError) as error:
        raise DPCInterpError(
            f"{name!r} is no folder here and cannot be fetched from the hub ({type(error).__name__}); "
            "download the adapter and give its folder"
        ) from error
