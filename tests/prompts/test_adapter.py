"""A prompt-tuning adapter is read; anything else raises one line that names the reason."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from dpc_interp import DPCInterpError, SoftPrompt, load_prompt
from dpc_interp.errors import NonFiniteError, ShapeError
from dpc_interp.models.lens import HookedTransformer

LEGACY = "adapter_model.bin"


@pytest.fixture
def folder(prompt: SoftPrompt, tmp_path: Path) -> Path:
    """A valid adapter, which tests damage."""
    prompt.save_pretrained(tmp_path / "mine", base_model="somewhere/llama")
    return tmp_path / "mine"


def configure(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put(folder: Path, vectors: torch.Tensor, **other_tensors: torch.Tensor) -> None:
    """Replace the vectors and state their shape in the configuration."""
    save_file({"prompt_embeddings": vectors, **other_tensors}, folder / "adapter_model.safetensors")
    configure(folder, num_virtual_tokens=vectors.shape[0], token_dim=vectors.shape[-1])


def put_legacy(folder: Path, content: object, **options: bool) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save(content, folder / LEGACY, **options)


class RunsCode:
    """Its pickle creates a folder when it is loaded."""

    def __init__(self, created: Path):
        self.created = created

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.mkdir, (self.created,)


def message_of(name: str | Path, match: str, kind: type[DPCInterpError] = DPCInterpError, **options: object) -> str:
    """The error message of `load_prompt`: one short line."""
    with pytest.raises(kind, match=match) as caught:
        load_prompt(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(re.sub(r"/\S*/", "", message)) < 240, message  # without the paths
    return message


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (peft.PrefixTuningConfig(), "is a PREFIX_TUNING adapter; it writes keys and values"),
        (peft.AdaptionPromptConfig(), "is a ADAPTION_PROMPT adapter; it enters inside"),
        (peft.LoraConfig(), "is a LORA adapter; .* merge it"),
        (peft.AdaLoraConfig(total_step=9), "is a ADALORA adapter; .* merge it"),
        (peft.IA3Config(), "is a IA3 adapter; .* merge it"),
        (peft.LoHaConfig(), "is a LOHA adapter; .* merge it"),
        (peft.LoKrConfig(), "is a LOKR adapter; .* merge it"),
        (peft.VeraConfig(), "is a VERA adapter; .* merge it"),
    ],
    ids=lambda value: getattr(value, "peft_type", ""),
)
def test_other_adapter_types_of_peft_raise(folder: Path, config: peft.PeftConfig, match: str) -> None:
    config.save_pretrained(folder)
    message_of(folder, match)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, type[DPCInterpError]]] = {
    "fewer vectors than stated": (lambda f: configure(f, num_virtual_tokens=6), r"\[5, 16\].*\[6, 16\]", ShapeError),
    "another width than stated": (lambda f: configure(f, token_dim=32), r"\[5, 16\].*\[5, 32\]", ShapeError),
    "three axes": (lambda f: put(f, torch.ones(5, 2, 16)), r"\[5, 2, 16\]", ShapeError),
    "no vector": (lambda f: put(f, torch.ones(0, 16)), r"\[0, 16\]", ShapeError),
    "two submodules": (lambda f: configure(f, num_transformer_submodules=2), "for 2 submodules", DPCInterpError),
    "an encoder and a decoder": (
        lambda f: configure(f, num_transformer_submodules=None, task_type="SEQ_2_SEQ_LM"),
        "for 2 submodules",
        DPCInterpError,
    ),
    "NaN": (lambda f: put(f, torch.full((5, 16), float("nan"))), "NaN or infinity", NonFiniteError),
    "infinity": (lambda f: put(f, torch.full((5, 16), 70000.0).half()), "NaN or infinity", NonFiniteError),
    "past float32": (
        lambda f: put(f, torch.full((5, 16), 1e300, dtype=torch.float64)),
        "NaN or infinity",
        NonFiniteError,
    ),
    "whole numbers": (
        lambda f: put(f, torch.ones(5, 16, dtype=torch.int8)),
        "has no floating-point tensor",
        DPCInterpError,
    ),
    "trained embeddings": (
        lambda f: put(f, torch.ones(5, 16), **{"base_model.model.embed_tokens.weight": torch.ones(9, 16)}),
        "also contains 'base_model.model.embed_tokens.weight'.*save_embedding_layers=False",
        DPCInterpError,
    ),
    "another tensor": (
        lambda f: save_file({"lora_A": torch.ones(5, 16)}, f / "adapter_model.safetensors"),
        "has no floating-point tensor 'prompt_embeddings'",
        DPCInterpError,
    ),
    "cut off": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x08\0\0"),
        "adapter_model.safetensors is broken",
        DPCInterpError,
    ),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "lacks adapter_model", DPCInterpError),
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "lacks adapter_config", DPCInterpError),
    "not JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "is not JSON", DPCInterpError),
    "not UTF-8": (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe\xff"), "is not JSON", DPCInterpError),
    "not an object": (lambda f: (f / "adapter_config.json").write_text("[]"), "is not a JSON object", DPCInterpError),
    "no type": (lambda f: configure(f, peft_type=None), "is a None adapter", DPCInterpError),
    "broken recipe": (lambda f: (f / "recipe.json").write_text("seed"), "recipe.json is not JSON", DPCInterpError),
    "legacy, no state dict": (
        lambda f: put_legacy(f, torch.ones(5, 16)),
        "does not contain a state dict",
        DPCInterpError,
    ),
    "legacy, cut off": (
        lambda f: (put_legacy(f, {}), (f / LEGACY).write_bytes(b"PK\x03\x04")),
        "adapter_model.bin is broken",
        DPCInterpError,
    ),
    "legacy, empty": (
        lambda f: (put_legacy(f, {}), (f / LEGACY).write_bytes(b"")),
        "adapter_model.bin is broken",
        DPCInterpError,
    ),
    "legacy, no tensor": (
        lambda f: put_legacy(f, {"prompt_embeddings": [1.0]}),
        "has no floating-point tensor 'prompt_embeddings'",
        DPCInterpError,
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_adapter_raises_one_line(folder: Path, case: str) -> None:
    load_prompt(folder)
    damage, match, kind = DAMAGE[case]
    damage(folder)
    message_of(folder, match, kind)


@pytest.mark.parametrize("zipped", [True, False])
def test_legacy_file(folder: Path, prompt: SoftPrompt, zipped: bool) -> None:
    put_legacy(folder, {"prompt_embeddings": prompt.vectors}, _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_prompt(folder).vectors, prompt.vectors)


def test_safetensors_are_preferred_to_a_legacy_file(folder: Path, prompt: SoftPrompt) -> None:
    torch.save({"prompt_embeddings": -prompt.vectors}, folder / LEGACY)
    assert torch.equal(load_prompt(folder).vectors, prompt.vectors)


@pytest.mark.parametrize("form", ["zip", "old torch", "bare pickle"])
def test_a_pickle_that_runs_code_is_not_loaded(folder: Path, prompt: SoftPrompt, tmp_path: Path, form: str) -> None:
    created = tmp_path / "run"
    content = {"prompt_embeddings": prompt.vectors, "other": RunsCode(created)}
    put_legacy(folder, content, _use_new_zipfile_serialization=form == "zip")
    if form == "bare pickle":
        (folder / LEGACY).write_bytes(pickle.dumps(content, protocol=2))
    message_of(folder, "could run code and was not loaded")
    assert not created.exists()
    if form != "bare pickle":  # otherwise the file would run it
        torch.load(folder / LEGACY, weights_only=False)
        assert created.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_vectors_are_float32_whatever_was_saved(folder: Path, prompt: SoftPrompt, dtype: torch.dtype) -> None:
    put(folder, prompt.vectors.to(dtype))
    vectors = load_prompt(folder).vectors
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, prompt.vectors.to(dtype).float())


def test_vectors_are_float32_on_disk(prompt: SoftPrompt, tmp_path: Path) -> None:
    SoftPrompt(prompt.vectors.bfloat16().requires_grad_()).save_pretrained(tmp_path)
    (vectors,) = load_file(tmp_path / "adapter_model.safetensors").values()
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, prompt.vectors.bfloat16().float())


def test_the_width_of_the_model_is_checked_and_its_name_is_not(
    folder: Path, build: Callable[..., HookedTransformer]
) -> None:
    """A model has many names (Hub, folder, alias), so `base_model` is informative only."""
    assert load_prompt(folder, build("plain")).base_model == "somewhere/llama"
    wide = build("plain", d_model=32, model_name="wide")
    message_of(folder, r"'somewhere/llama'\) is 16 wide, the model 'wide' 32", ShapeError, model=wide)
    configure(folder, base_model_name_or_path=None)
    assert load_prompt(folder).base_model == ""
    assert "tuned on '" not in message_of(folder, "is 16 wide", ShapeError, model=wide)


def test_bundled_prompts_name_their_model() -> None:
    assert load_prompt("reasoner/story").base_model == "reasoner"


def test_base_model_is_saved_again(folder: Path, tmp_path: Path) -> None:
    load_prompt(folder).save_pretrained(tmp_path / "again")
    assert load_prompt(tmp_path / "again").base_model == "somewhere/llama"
    load_prompt(folder).save_pretrained(tmp_path / "again", base_model="elsewhere/llama")
    assert load_prompt(tmp_path / "again").base_model == "elsewhere/llama"


def test_the_text_that_peft_started_from_is_kept(folder: Path) -> None:
    configure(folder, prompt_tuning_init="TEXT", prompt_tuning_init_text="Think step by step.")
    recipe = load_prompt(folder).recipe
    assert (recipe["init_text"], recipe["init_special_tokens"]) == ("Think step by step.", True)
    configure(folder, prompt_tuning_init="RANDOM")
    assert "init_text" not in load_prompt(folder).recipe
