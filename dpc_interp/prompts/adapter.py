"""Read and write PEFT adapters that are soft prompts: `adapter_config.json` next to `adapter_model.safetensors`.

The tensor `prompt_embeddings` [n_virtual, d_model] is the prompt; multitask prompt tuning has two more (`peft_types.py`
lists the types). The older `adapter_model.bin` is read as well, but only as tensors: a pickle that would run code is
rejected. An adapter that holds anything PEFT would use and a soft prompt cannot represent (another adapter type, a
second submodule, trained embeddings) is rejected with the reason, because ignoring it would change the model's outputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.prompts.peft_types import MULTITASK, refusal_reason

CONFIG, RECIPE = "adapter_config.json", "recipe.json"
WEIGHTS, LEGACY_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
VECTORS, TASK_COLS, TASK_ROWS = "prompt_embeddings", "prefix_task_cols", "prefix_task_rows"
"""Names of the tensors that PEFT saves: the vectors, and the two factors by which a task scales them."""


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


def read_adapter(folder: Path, task: int | None = None) -> tuple[Float[Tensor, "n_virtual d_model"], str]:
    """Read the vectors of an adapter and the name of its base model.

    Args:
        folder: with the configuration and the weights.
        task: which task of a multitask adapter, counted from 0; None for every other adapter.

    Returns:
        The vectors, float32 on the CPU, and the name of the base model ("" where the configuration has none).

    Raises:
        DPCInterpError: another type of adapter, files that are missing, broken or hold more than a prompt, or a task
            that is missing or does not exist.
        ShapeError: the tensors are not of the shape that the configuration states.
    """
    config = read_config(folder)
    file = next((folder / name for name in (WEIGHTS, LEGACY_WEIGHTS) if (folder / name).is_file()), None)
    if file is None:
        raise DPCInterpError(f"{folder} lacks {WEIGHTS}; give a PEFT adapter folder")
    weights = _read_weights(file)
    vectors = _pop_floats(file, weights, VECTORS)
    factors = None
    if config["peft_type"] == MULTITASK:
        factors = _pop_floats(file, weights, TASK_COLS), _pop_floats(file, weights, TASK_ROWS)
    if weights:
        raise DPCInterpError(
            f"{file} also contains {str(next(iter(weights)))[:60]!r}, which is not part of a soft prompt; save the "
            "adapter again with save_embedding_layers=False, and tune it without modules_to_save"
        )
    stated_shape = [config.get("num_virtual_tokens"), config.get("token_dim")]
    shape = list(vectors.shape)
    # the configuration may leave either size open
    if len(shape) != 2 or 0 in shape or any(n not in (None, size) for n, size in zip(stated_shape, shape, strict=True)):
        raise ShapeError(
            f"{file} has vectors of shape {shape}, {CONFIG} states {stated_shape}; save the adapter again with PEFT"
        )
    base_model = str(config.get("base_model_name_or_path") or "")
    if factors is not None:
        return _vectors_of_task(file, vectors, *factors, task), base_model
    if task is not None:
        raise DPCInterpError(f"{folder} is a {config['peft_type']} adapter, which has no tasks; leave out task=")
    return vectors, base_model


def _pop_floats(file: Path, weights: dict[str, Any], name: str) -> Tensor:
    """Take a tensor out of the weights, in float32."""
    tensor = weights.pop(name, None)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise DPCInterpError(f"{file} has no floating-point tensor {name!r}; save the adapter again with PEFT")
    return tensor.float()


def _vectors_of_task(
    file: Path, vectors: Float[Tensor, "n_virtual d_model"], cols: Tensor, rows: Tensor, task: int | None
) -> Float[Tensor, "n_virtual d_model"]:
    """Vectors * (cols[task] @ rows[task]), as PEFT computes the prompt of a task."""
    (n_virtual, width), n_tasks = vectors.shape, len(cols)
    ranks = {cols.shape[-1], rows.shape[-2] if rows.ndim > 1 else None}
    if (cols.ndim, rows.ndim, len(ranks)) != (3, 3, 1) or (cols.shape[1], *rows.shape[::2]) != (
        n_virtual,
        n_tasks,
        width,
    ):
        raise ShapeError(
            f"{file} has {TASK_COLS} {list(cols.shape)} and {TASK_ROWS} {list(rows.shape)} for vectors "
            f"{[n_virtual, width]}; save the adapter again with PEFT"
        )
    if task is None and n_tasks == 1:
        task = 0
    if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < n_tasks:
        given = "needs one of them" if task is None else f"has no task {task!r}"
        raise DPCInterpError(
            f"{file.parent} holds a prompt for each of {n_tasks} tasks and {given}; "
            f"give task=0{f' to task={n_tasks - 1}' if n_tasks > 1 else ''}"
        )
    return vectors * (cols[task] @ rows[task])


def initial_text(folder: Path) -> str | None:
    """The text whose embeddings PEFT started the tuning from; None: another start, or one that is not recorded.

    Args:
        folder: folder of the adapter.
    """
    config = read_config(folder)
    text = config.get("prompt_tuning_init_text")
    return text if config.get("prompt_tuning_init") == "TEXT" and isinstance(text, str) and text else None


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of an adapter that is a soft prompt for a decoder-only model.

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
    reason = refusal_reason(peft_type)
    if reason is not None:
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
