"""Each family as a HookedTransformer, and as a bridge, answers as Hugging Face's model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

from dpc_interp import DPCInterpError, hub, load_model
from dpc_interp.lm import loading
from dpc_interp.lm.generation import question_tokens
from dpc_interp.lm.lens import HAS_HOOKED, HookedTransformer
from dpc_interp.lm.loading import SMOLLM2

TOKENS = torch.randint(3, 200, (2, 40), generator=torch.Generator().manual_seed(0))  # longer than every window
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3, "hidden_size": 64}),
    "mistral": ("mistral", {}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, plain wide heads": ("mistral", {"num_key_value_heads": 4, "head_dim": 8}),
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "qwen2, window above": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "gpt2": ("gpt2", {}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False, "activation_function": "gelu"}),
    "gpt2, scale by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}
Tiny = Callable[..., Path]


@torch.no_grad()
def hf_logits(folder: Path) -> torch.Tensor:
    logits = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()(TOKENS).logits
    assert logits.std() > 0.3
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_hugging_face(tiny: Tiny, tmp_path: Path, variant: str) -> None:
    family, changes = VARIANTS[variant]
    model = load_model(str(tiny(family, tmp_path, **changes)), device="cpu")
    torch.testing.assert_close(model(TOKENS), hf_logits(tmp_path), rtol=1e-4, atol=1e-4)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2", "gpt_neox"])
def test_a_bridge_answers_as_hugging_face(tiny: Tiny, tmp_path: Path, family: str) -> None:
    model = load_model(str(tiny(family, tmp_path)), device="cpu", backend="bridge")
    torch.testing.assert_close(model(TOKENS), hf_logits(tmp_path), rtol=1e-4, atol=1e-4)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.tokenizer.bos_token_id == 1
    assert model.to_tokens("Tom has 9 apples.")[0, 0] == 1


@pytest.mark.parametrize(
    ("variant", "seen"),
    [("mistral", [False] * 35 + [True] * 5), ("llama", [True] * 40)],
)
def test_the_window_is_what_a_token_sees(tiny: Tiny, tmp_path: Path, variant: str, seen: list[bool]) -> None:
    model = load_model(str(tiny(variant, tmp_path)), device="cpu")
    _, cache = model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_pattern")
    assert (cache["blocks.0.attn.hook_pattern"][0, 0, -1] > 0).tolist() == seen


def test_the_tokenizer_is_hugging_face_s(tiny: Tiny, tmp_path: Path, tokenizer, backend: str) -> None:
    model = load_model(str(tiny("llama", tmp_path)), device="cpu", backend=backend)
    ids = tokenizer("Tom has 9 apples.", add_special_tokens=False).input_ids
    assert model.to_tokens("Tom has 9 apples.")[0].tolist() == [1, *ids]
    assert model.to_tokens("Tom has 9 apples.", prepend_bos=False)[0].tolist() == ids


def test_a_model_without_bos_is_given_none(tiny: Tiny, tmp_path: Path, tokenizer, backend: str) -> None:
    folder = tiny("llama", tmp_path)
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace(f'"bos_token": "{tokenizer.bos_token}"', '"bos_token": null'))
    model = load_model(str(folder), device="cpu", backend=backend)
    assert model.tokenizer.bos_token is None
    assert question_tokens(model, "Tom has 9 apples.")[0] == tokenizer("Tom", add_special_tokens=False).input_ids[0]
    ids = tokenizer("Tom has 9 apples.", add_special_tokens=False).input_ids
    assert model.to_tokens("Tom has 9 apples.")[0].tolist() == ids


def test_a_long_context_costs_nothing(tiny: Tiny, tmp_path: Path) -> None:
    model = load_model(str(tiny("llama", tmp_path, max_position_embeddings=131072)), device="cpu")
    assert model.cfg.n_ctx == 131072
    assert sum(buffer.numel() for buffer in model.buffers()) < 100_000


REFUSED = {
    "yarn": ("llama", {"rope_parameters": {**LLAMA3, "rope_type": "yarn"}}, "rotary embedding by 'yarn'"),
    "linear": ("mistral", {"rope_parameters": {**LLAMA3, "rope_type": "linear"}}, "rotary embedding by 'linear'"),
    "biases": ("llama", {"attention_bias": True}, "biases"),
    "mlp biases": ("llama", {"mlp_bias": True}, "biases"),
    "activation": ("qwen2", {"hidden_act": "quick_gelu"}, "activation is 'quick_gelu'"),
    "cross-attention": ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    "quantised": ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
    "family": ("gpt_neox", {}, "is a 'gpt_neox' model; .*bridge"),
}


@pytest.mark.parametrize("part", REFUSED)
def test_what_would_be_lost_is_refused(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path, part: str) -> None:
    if part != "quantised":
        request.getfixturevalue("needs_hooked")
    family, changes, message = REFUSED[part]
    with pytest.raises(DPCInterpError, match=message):
        load_model(str(tiny(family, tmp_path, **changes)), device="cpu")


def test_a_damaged_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    weights = tiny("gpt2", tmp_path) / "model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if "h.1.mlp.c_fc.bias" not in k}, weights, {"format": "pt"})
    with pytest.raises(DPCInterpError, match=r"lacks the weights .*h\.1\.mlp\.c_fc\.bias"):
        load_model(str(tmp_path))
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(DPCInterpError, match=r"cannot be read .* fetch the model again"):
        load_model(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    for file in tiny("gpt2", tmp_path).glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DPCInterpError, match="no tokenizer"):
        load_model(str(tmp_path))


def test_an_architecture_no_bridge_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sparrow"}')
    with pytest.raises(DPCInterpError, match="sparrow"):
        load_model(str(tmp_path), backend="bridge")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reasonr", "unknown model 'reasonr'"),
        ("/no/such/folder", "unknown model '/no/such/folder'"),
        ("here/model.gguf", "no file here/model.gguf"),
        (__file__, "no folder and no .gguf file"),
    ],
)
def test_a_name_that_is_nowhere_is_refused(name: str, message: str) -> None:
    with pytest.raises(DPCInterpError, match=message):
        load_model(name)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(DPCInterpError, match="unknown backend 'bridges'; known: hooked, bridge"):
        load_model("reasoner", backend="bridges")


def test_the_default_is_the_first_backend_there_is() -> None:
    model = load_model("reasoner", device="cpu")
    assert isinstance(model, HookedTransformer if HAS_HOOKED else TransformerBridge)


def test_hooked_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpc_interp.lm.lens.HAS_HOOKED", False)
    with pytest.raises(DPCInterpError, match=r'backend="hooked" needs TransformerLens 3, .*; take backend="bridge"'):
        load_model("reasoner", backend="hooked")


@pytest.mark.parametrize("network", ["switched off", "no route", "no answer"])
@pytest.mark.parametrize("name", ["someone/some-model", "pythia-14m", "meta-llama/Llama-2-13b-hf", SMOLLM2])
def test_without_a_network_a_name_fails_in_seconds(
    monkeypatch: pytest.MonkeyPatch, silent_server: str, name: str, network: str
) -> None:
    monkeypatch.setattr(loading, "packaged_smollm2", lambda: None)
    if network != "switched off":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9" if network == "no route" else silent_server)
        monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    start = time.monotonic()
    with pytest.raises(DPCInterpError, match="cannot be fetched .*make smollm2" if name == SMOLLM2 else "its folder"):
        load_model(name)
    assert time.monotonic() - start < 3


@pytest.fixture
def silent_server():
    """A hub that takes the call and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
