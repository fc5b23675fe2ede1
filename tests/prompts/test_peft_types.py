"""Every type in PEFT's list is loaded or refused, and each reason is true of adapters that PEFT itself makes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from dpc_interp import DPCInterpError, load_prompt
from dpc_interp.prompts.peft_types import KEYS_AND_VALUES, MERGE, NOT_A_PROMPT, PROMPT_TYPES, refusal_reason

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])
OPTIONS: dict[str, dict[str, object]] = {
    "ADALORA": {"total_step": 9},
    "ADAPTION_PROMPT": {"adapter_len": 3, "adapter_layers": 1, "target_modules": None},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "CARTRIDGE": {"num_virtual_tokens": 3},
    "FOURIERFT": {"n_frequency": 5},
    "IA3": {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4, "r": 0},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 4},
    "SHADOW": {"target_modules": None},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [6, 7], "target_modules": None},
    "VBLORA": {"vector_length": 4, "num_vectors": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 5},
}
REFUSED = [peft_type.value for peft_type in PeftType if peft_type.value not in PROMPT_TYPES]
BUILT = [name for name in REFUSED if name != "XLORA"]
"""XLORA needs LoRA adapters on disk, which it reads again when it is loaded."""


def llama(**options: object) -> PreTrainedModel:
    torch.manual_seed(3)
    options |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.3, **options)).eval()


def adapted(model: PreTrainedModel, name: str) -> PeftModel:
    """A model with an adapter of a type, its trainable weights away from where they start."""
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)]
    options: dict[str, object] = {"task_type": "CAUSAL_LM"}
    if "target_modules" in config_class.__dataclass_fields__:
        options["target_modules"] = ["q_proj", "v_proj"]
    options |= OPTIONS.get(name, {})
    theirs = get_peft_model(deepcopy(model), config_class(**options)).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    return theirs


def test_every_type_of_peft_is_known() -> None:
    """A new type of PEFT fails here: it needs a reason of its own. Older versions lack some of the types."""
    assert {peft_type.value for peft_type in PeftType} <= {*PROMPT_TYPES, *NOT_A_PROMPT}
    assert set(PROMPT_TYPES) & set(NOT_A_PROMPT) == set()


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_type_is_refused_with_a_true_reason(name: str, tmp_path: Path) -> None:
    base = llama(attention_bias=name == "BEFT")  # it trains biases
    theirs = adapted(base, name)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(DPCInterpError) as caught:
        load_prompt(tmp_path / "theirs")
    reason = refusal_reason(name)
    assert reason is not None
    assert str(caught.value) == f"{tmp_path / 'theirs'} is a {name} adapter; {reason}"
    options = {"task_ids": torch.tensor([0])} if name == "POLY" else {}
    with torch.no_grad():
        logits = theirs(input_ids=TOKENS, **options).logits
        assert (logits - base(TOKENS).logits).abs().max() > 1e-3  # the adapter does something
        if reason == KEYS_AND_VALUES:
            (saved,) = load_file(tmp_path / "theirs" / "adapter_model.safetensors").values()
            n_layers, n_kv_heads, head_dim = 2, 4, 4
            assert saved.shape == (3, n_layers * 2 * n_kv_heads * head_dim)
        elif reason == MERGE or name == "BEFT":
            torch.testing.assert_close(theirs.merge_and_unload()(TOKENS).logits, logits, rtol=1e-4, atol=1e-4)
        else:
            with pytest.raises((NotImplementedError, AttributeError)):
                theirs.merge_and_unload()


@pytest.mark.filterwarnings("ignore")
def test_a_bias_adapter_cannot_be_merged_into_layers_without_biases() -> None:
    """Therefore its reason says "where the layers have biases"."""
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BEFT]
    theirs = get_peft_model(llama(), config_class(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="has no bias"):
        theirs.merge_and_unload()


@pytest.mark.parametrize("peft_type", [None, "XLORA", "NEXT_YEARS_TYPE", 7])
def test_a_type_without_an_adapter_here_is_refused_too(peft_type: object, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"peft_type": "{peft_type}"}}')
    with pytest.raises(DPCInterpError, match=f"is a {peft_type} adapter; ") as caught:
        load_prompt(tmp_path)
    assert "tune with PROMPT_TUNING" in str(caught.value)
