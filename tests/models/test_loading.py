"""Loaded models: logits, texts and tokenizers equal Hugging Face's, and a model that cannot be loaded raises."""

from __future__ import annotations

import copy
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate, hub, load_model, load_prompt, prompted
from dpc_interp.models import loading
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer
from dpc_interp.models.loading import SMOLLM2

TOKENS = torch.randint(3, 200, (2, 40), generator=torch.Generator().manual_seed(0))
Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def llama(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama. Never written to."""
    return tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def hf_model(llama: Path) -> Iterator[PreTrainedModel]:
    with torch.no_grad():
        yield AutoModelForCausalLM.from_pretrained(llama, local_files_only=True).eval()


# Equality with Hugging Face and PEFT


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2"])
def test_logits_equal_hugging_face(
    tiny: Tiny, prompt: SoftPrompt, tmp_path: Path, family: str, backend: str, unchanged: Callable
) -> None:
    """Bare, and with a soft prompt in front as embeddings."""
    theirs = AutoModelForCausalLM.from_pretrained(tiny(family, tmp_path), local_files_only=True).eval()
    model = load_model(str(tmp_path), device="cpu", backend=backend)
    expected = theirs(TOKENS).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    embeddings = torch.cat([prompt.vectors.expand(2, -1, -1), theirs.get_input_embeddings()(TOKENS)], dim=1)
    with unchanged(model), prompted(model, prompt) as run:
        logits = run(TOKENS)
    torch.testing.assert_close(logits, theirs(inputs_embeds=embeddings).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_bridge_loads_other_architectures(tiny: Tiny, tmp_path: Path) -> None:
    model = load_model(str(tiny("gpt_neox", tmp_path)), device="cpu", backend="bridge")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()(TOKENS).logits
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_logits_equal_peft(llama: Path, hf_model: PreTrainedModel, prompt: SoftPrompt, tmp_path: Path) -> None:
    from peft import PeftModel

    prompt.save_pretrained(tmp_path, base_model=str(llama))
    expected = PeftModel.from_pretrained(hf_model, tmp_path).eval()(input_ids=TOKENS).logits
    with prompted(load_model(str(llama), device="cpu"), load_prompt(str(tmp_path))) as run:
        torch.testing.assert_close(run(TOKENS), expected, rtol=1e-4, atol=1e-5)


def test_adapter_saved_by_peft_loads(llama: Path, hf_model: PreTrainedModel, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, TaskType, get_peft_model

    theirs = get_peft_model(hf_model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4))
    theirs.save_pretrained(tmp_path)
    prompt = load_prompt(str(tmp_path))
    assert torch.equal(prompt.vectors, theirs.get_prompt_embedding_to_save("default"))
    with prompted(load_model(str(llama), device="cpu"), prompt) as run:
        torch.testing.assert_close(run(TOKENS), theirs.eval()(input_ids=TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_texts_equal_hugging_face(
    llama: Path, hf_model: PreTrainedModel, prompt: SoftPrompt, problems: list[Problem]
) -> None:
    model = load_model(str(llama), device="cpu")
    for run in generate(model, problems[:4], prompt, max_new_tokens=20, progress=False):
        question = encode_question(model, run.problem.question)
        embeddings = torch.cat([prompt.vectors, hf_model.get_input_embeddings()(question)])[None]
        expected = hf_model.generate(inputs_embeds=embeddings, max_new_tokens=20, do_sample=False)[0]
        assert run.generated_tokens.tolist() == expected.tolist()


# The state of a loaded model


def test_model_is_frozen_and_of_the_dtype(llama: Path, backend: str) -> None:
    model = load_model(str(llama), device="cpu", backend=backend, dtype=torch.bfloat16)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_home_folder_is_expanded(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(llama.parent))
    assert load_model(f"~/{llama.name}", device="cpu").cfg.n_layers == 2


@pytest.mark.parametrize(
    "name", [str, Path, lambda folder: Path(f"~/{folder.name}"), lambda folder: f"~/{folder.name}/"]
)
def test_a_folder_is_text_or_a_path(llama: Path, monkeypatch: pytest.MonkeyPatch, name: Callable) -> None:
    monkeypatch.setenv("HOME", str(llama.parent))
    assert load_model(name(llama), device="cpu").cfg.n_layers == 2


def test_a_path_below_the_working_folder(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama.parent)
    for name in (Path(llama.name), Path(llama.name), f"./{llama.name}"):
        assert load_model(name, device="cpu").cfg.n_layers == 2


def test_a_bundled_name_may_be_a_path() -> None:
    assert load_model(Path("reasoner"), device="cpu").cfg.n_layers == load_model("reasoner", device="cpu").cfg.n_layers


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("torch.float64", torch.float64)])
def test_dtype_and_device_by_name(llama: Path, backend: str, dtype: str, expected: torch.dtype) -> None:
    model = load_model(llama, device=torch.device("cpu"), dtype=dtype, backend=backend)
    assert {weight.dtype for weight in model.parameters()} == {expected}
    assert model.cfg.dtype == expected
    assert str(model.cfg.device) == "cpu"
    assert model(TOKENS).dtype == expected


def test_device_and_dtype_are_refused_before_the_model_is_looked_up() -> None:
    with pytest.raises(DPCInterpError, match="unknown device 'gpu'"):
        load_model("no-such-model", device="gpu")
    with pytest.raises(DPCInterpError, match="dtype='int8'"):
        load_model("no-such-model", device="cpu", dtype="int8")


def test_tokenizer_equals_hugging_face(llama: Path, tokenizer, backend: str) -> None:
    model = load_model(str(llama), device="cpu", backend=backend)
    ids = tokenizer("Tom has 9 apples.", add_special_tokens=False).input_ids
    assert model.tokenizer.bos_token_id == 1
    assert model.to_tokens("Tom has 9 apples.")[0].tolist() == [1, *ids]
    assert model.to_tokens("Tom has 9 apples.", prepend_bos=False)[0].tolist() == ids


def test_tokenizer_without_bos_gets_none(tiny: Tiny, tmp_path: Path, tokenizer, backend: str) -> None:
    folder = tiny("llama", tmp_path)
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace(f'"bos_token": "{tokenizer.bos_token}"', '"bos_token": null'))
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    model = load_model(str(folder), device="cpu", backend=backend)
    assert model.tokenizer.bos_token is None
    ids = tokenizer("Tom has 9 apples.", add_special_tokens=False).input_ids
    assert encode_question(model, "Tom has 9 apples.")[0] == ids[0]
    assert model.to_tokens("Tom has 9 apples.")[0].tolist() == ids


def test_default_backend_is_hooked_if_available() -> None:
    model = load_model("reasoner", device="cpu")
    assert isinstance(model, HookedTransformer if HAS_HOOKED else TransformerBridge)


# Models that cannot be loaded


def test_unsupported_part_raises_before_the_weights_are_read(tiny: Tiny, tmp_path: Path, needs_hooked: None) -> None:
    tiny("llama", tmp_path, attention_bias=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DPCInterpError, match="biases"):
        load_model(str(tmp_path), device="cpu")


def test_other_family_raises_and_names_the_bridge(tiny: Tiny, tmp_path: Path, needs_hooked: None) -> None:
    with pytest.raises(DPCInterpError, match=r"is a 'gpt_neox' model; .*bridge"):
        load_model(str(tiny("gpt_neox", tmp_path)), device="cpu")


def test_quantised_model_raises(tiny: Tiny, tmp_path: Path) -> None:
    tiny("llama", tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(DPCInterpError, match="is quantised"):
        load_model(str(tmp_path), device="cpu")


def test_damaged_weights_raise(tiny: Tiny, tmp_path: Path) -> None:
    file = tiny("gpt2", tmp_path) / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if "h.1.mlp.c_fc.bias" not in name}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(DPCInterpError, match=r"lacks the weights .*h\.1\.mlp\.c_fc\.bias"):
        load_model(str(tmp_path))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DPCInterpError, match=r"cannot be read .* fetch the model again"):
        load_model(str(tmp_path))


def test_missing_tokenizer_raises(tiny: Tiny, tmp_path: Path) -> None:
    for file in tiny("gpt2", tmp_path).glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DPCInterpError, match="has no tokenizer"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("change", ["a smaller model", "an added token", "a token with a gap before it"])
def test_tokenizer_with_more_tokens_than_the_model_is_refused(
    tiny: Tiny, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, backend: str, change: str
) -> None:
    """Before the weights are read."""
    n_tokens = len(tokenizer)
    folder = tiny("llama", tmp_path, vocab_size=n_tokens - (change == "a smaller model"))
    if change == "an added token":
        larger = copy.deepcopy(tokenizer)
        larger.add_tokens(["<extra>"])
        larger.save_pretrained(folder)
    elif change == "a token with a gap before it":  # fewer tokens than the model has embeddings
        file = folder / "tokenizer.json"
        text = json.loads(file.read_text())
        vocab = text["model"]["vocab"]
        token = max(vocab, key=vocab.get)
        vocab[token] = n_tokens + 5
        file.write_text(json.dumps(text))
    (folder / "model.safetensors").unlink()
    with pytest.raises(DPCInterpError, match=r"has ids up to \d+ \('.*'\), but the model only \d+ embeddings; give"):
        load_model(folder, device="cpu", backend=backend)


def test_a_model_with_padded_embeddings_loads(tiny: Tiny, tmp_path: Path, tokenizer, backend: str) -> None:
    folder = tiny("llama", tmp_path, vocab_size=len(tokenizer) + 40)
    assert load_model(folder, device="cpu", backend=backend).cfg.d_vocab == len(tokenizer) + 40


def test_a_padding_token_without_an_embedding_loads(
    tiny: Tiny, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, backend: str, problems: list[Problem]
) -> None:
    """It is often added for training, and is never read here: padding is masked placeholders."""
    folder = tiny("llama", tmp_path)
    larger = copy.deepcopy(tokenizer)
    larger.add_special_tokens({"pad_token": "[PAD]"})
    larger.save_pretrained(folder)
    model = load_model(folder, device="cpu", backend=backend)
    assert model.tokenizer.pad_token_id == model.cfg.d_vocab
    assert len(generate(model, problems[:3], max_new_tokens=3, progress=False)) == 3


def test_tokenizer_without_eos_uses_the_end_token_of_the_model(tiny: Tiny, tmp_path: Path, backend: str) -> None:
    folder = tiny("llama", tmp_path)
    config = folder / "tokenizer_config.json"
    config.write_text(re.sub(r'"eos_token": "[^"]*"', '"eos_token": null', config.read_text()))
    model = load_model(folder, device="cpu", backend=backend)
    assert model.tokenizer.eos_token is None
    assert end_tokens(model) == (2,)


def test_unknown_architecture_raises(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sparrow"}')
    with pytest.raises(DPCInterpError, match="sparrow"):
        load_model(str(tmp_path), backend="bridge")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reasonr", "unknown model 'reasonr'"),
        ("/no/such/folder", "unknown model '/no/such/folder'"),
        ("here/model.gguf", "the file here/model.gguf does not exist"),
        (Path("/no/such/folder"), "/no/such/folder does not exist"),
        (Path("owner/name"), "owner/name does not exist"),
        ("", "unknown model ''"),
        ("~nobody-of-this-name/model", "the home folder of no user"),
        (Path("here/model.gguf"), "here/model.gguf does not exist"),
        (__file__, "neither a folder nor a .gguf file"),
    ],
)
def test_unknown_name_raises(name: str | Path, message: str) -> None:
    with pytest.raises(DPCInterpError, match=message):
        load_model(name)


def test_unknown_backend_raises() -> None:
    with pytest.raises(DPCInterpError, match="unknown backend 'bridges'; known: hooked, bridge"):
        load_model("reasoner", backend="bridges")


@pytest.mark.parametrize("network", ["switched off", "no route", "no answer"])
@pytest.mark.parametrize(
    "name", ["someone/some-model", "models/mine", "pythia-14m", "meta-llama/Llama-2-13b-hf", SMOLLM2]
)
def test_name_on_the_hub_fails_within_seconds_without_a_network(
    monkeypatch: pytest.MonkeyPatch, silent_server: str, name: str, network: str
) -> None:
    monkeypatch.setattr(loading, "packaged_smollm2", lambda: None)
    if network != "switched off":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9" if network == "no route" else silent_server)
        monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(
        DPCInterpError, match="cannot be fetched .*make smollm2" if name == SMOLLM2 else "no folder.*its folder"
    ):
        load_model(name)
    assert time.monotonic() - start < 3


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a Hub that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
