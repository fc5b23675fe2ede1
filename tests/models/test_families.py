"""Each family that loads as a HookedTransformer gives the logits of the Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from dpc_interp import DPCInterpError, load_model
from dpc_interp.execution.digest import model_digest
from dpc_interp.models.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("needs_hooked")
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
    "llama, one wide key head": ("llama", {"num_key_value_heads": 1, "head_dim": 8}),
    "llama, rope and eps": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 1e-2},
    ),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3, "hidden_size": 64}),
    "mistral": ("mistral", {}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, plain wide heads": ("mistral", {"num_key_value_heads": 4, "head_dim": 8}),
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "qwen2, window in the upper layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "gpt2": ("gpt2", {}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False, "activation_function": "gelu"}),
    "gpt2, scale by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}
UNSUPPORTED = {
    "yarn": ("llama", {"rope_parameters": {**LLAMA3, "rope_type": "yarn"}}, "rotary embedding by 'yarn'"),
    "linear": ("mistral", {"rope_parameters": {**LLAMA3, "rope_type": "linear"}}, "rotary embedding by 'linear'"),
    "attention biases": ("llama", {"attention_bias": True}, "biases"),
    "mlp biases": ("llama", {"mlp_bias": True}, "biases"),
    "activation": ("qwen2", {"hidden_act": "quick_gelu"}, "activation is 'quick_gelu'"),
    "cross-attention": ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    "family": ("gpt_neox", {}, "this is a 'gpt_neox' model"),
}
Tiny = Callable[..., Path]


@torch.no_grad()
def convert(folder: Path) -> tuple[torch.nn.Module, torch.Tensor]:
    """The HookedTransformer of a folder, and the logits of its Hugging Face model."""
    from dpc_interp.models.families import to_hooked_transformer

    hf_model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    logits = hf_model(TOKENS).logits
    assert logits.std() > 0.3
    return to_hooked_transformer(hf_model, "cpu", torch.float32).eval(), logits


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_hugging_face(tiny: Tiny, tmp_path: Path, variant: str) -> None:
    family, changes = VARIANTS[variant]
    model, expected = convert(tiny(family, tmp_path, **changes))
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_not_folded(tiny: Tiny, tmp_path: Path) -> None:
    model, _ = convert(tiny("llama", tmp_path))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(model.blocks[0].ln1.w, theirs.model.layers[0].input_layernorm.weight)
    assert torch.equal(model.W_E, theirs.get_input_embeddings().weight)


@torch.no_grad()
@pytest.mark.parametrize(("family", "visible"), [("mistral", [False] * 35 + [True] * 5), ("llama", [True] * 40)])
def test_last_token_attends_within_the_window(tiny: Tiny, tmp_path: Path, family: str, visible: list[bool]) -> None:
    model, _ = convert(tiny(family, tmp_path))
    _, cache = model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_pattern")
    assert (cache["blocks.0.attn.hook_pattern"][0, 0, -1] > 0).tolist() == visible


def test_a_long_context_needs_no_memory(tiny: Tiny, tmp_path: Path) -> None:
    model, _ = convert(tiny("llama", tmp_path, max_position_embeddings=131072))
    assert model.cfg.n_ctx == 131072
    assert sum(buffer.numel() for buffer in model.buffers()) < 100_000


def test_dtype_is_that_requested(tiny: Tiny, tmp_path: Path) -> None:
    from dpc_interp.models.families import to_hooked_transformer

    tiny("gpt2", tmp_path)
    hf_model = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True, dtype=torch.bfloat16)
    model = to_hooked_transformer(hf_model, "cpu", torch.bfloat16)
    assert model.cfg.dtype == torch.bfloat16
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("part", UNSUPPORTED)
def test_parts_that_a_hooked_transformer_lacks_raise(part: str) -> None:
    from dpc_interp.models.families import hooked_config

    family, changes, message = UNSUPPORTED[part]
    config = AutoConfig.for_model(family, **changes)
    with pytest.raises(DPCInterpError, match=rf'{message}.*; try backend="bridge"'):
        hooked_config(config, "cpu", torch.float32)


# Weights stored in the order in which they are read: the same numbers, without copies in a pass


def n_copied(model: HookedTransformer, tokens: torch.Tensor) -> int:
    """Numbers copied in one forward pass."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        model(tokens)
    return sum(torch.Size(e.input_shapes[0]).numel() for e in profiled.events() if e.name == "aten::copy_")


@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
def test_same_numbers_and_fewer_copies(build: Callable[..., HookedTransformer], kind: str) -> None:
    from dpc_interp.models.families import make_weights_contiguous_as_read

    before = build(kind)
    after = deepcopy(before)
    make_weights_contiguous_as_read(after)
    weights = dict(before.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in after.named_parameters())
    assert all(not weight.requires_grad for weight in after.parameters())
    assert model_digest(after) == model_digest(before)
    tokens = torch.arange(3, 13).view(2, 5)
    resid = torch.randn(2, 5, before.cfg.d_model, requires_grad=True)
    results = []
    for model in (before, after):
        logits = model(resid, start_at_layer=0)
        (slope,) = torch.autograd.grad(logits.square().sum(), resid)
        results.append((model(tokens), logits, slope))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    one_token = tokens[:1, :1]
    transposed = ("W_Q", "W_K", "W_V", "W_O", "W_U") + (("W_gate", "W_in", "W_out") if before.cfg.gated_mlp else ())
    n_transposed = sum(weight.numel() for name, weight in weights.items() if name.endswith(transposed))
    assert n_copied(before, one_token) - n_copied(after, one_token) == n_transposed


def test_loaded_model_has_the_layout() -> None:
    model = load_model("reasoner", device="cpu", backend="hooked")
    block = model.blocks[0]
    assert block.attn.W_Q.transpose(1, 2).is_contiguous()
    assert block.attn.W_O.permute(2, 0, 1).is_contiguous()
    assert block.mlp.W_out.T.is_contiguous()
    assert model.unembed.W_U.T.is_contiguous()
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_weight_that_the_conversion_lacks_is_named(hugging_face: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep uninitialised memory."""
    from dpc_interp.models import families

    kind, convert = families.FAMILIES["llama"]

    def incomplete(*model_and_config: Any) -> dict[str, torch.Tensor]:
        weights = convert(*model_and_config)
        del weights["blocks.1.mlp.W_in"]
        return weights

    monkeypatch.setitem(families.FAMILIES, "llama", (kind, incomplete))
    with pytest.raises(DPCInterpError, match=r"converts no blocks\.1\.mlp\.W_in of this model; try backend=\"bridge\""):
        families.to_hooked_transformer(hugging_face("llama"), "cpu", torch.float32)
