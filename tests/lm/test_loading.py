"""A loaded model answers as Hugging Face's, with a soft prompt as PEFT's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from dpc_interp import DPCInterpError, SoftPrompt, generate, load_model, load_prompt, prompted
from dpc_interp.lm.generation import question_tokens

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13, 20, 33], [1, 33, 20, 87, 101, 120, 140, 201]])


def make_llama(tokenizer: PreTrainedTokenizerBase, folder: Path, **changes: object) -> Path:
    options = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 224,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(3)
    hf_model = LlamaForCausalLM(LlamaConfig(**(options | changes)))
    with torch.no_grad():
        for name, weight in hf_model.named_parameters():
            if "norm" in name or "bias" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    hf_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tokenizer, tmp_path_factory.mktemp("llama"))


@pytest.fixture
def hf_model(llama: Path) -> Iterator[LlamaForCausalLM]:
    with torch.no_grad():
        yield LlamaForCausalLM.from_pretrained(llama, local_files_only=True).eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "head_dim": 8},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 1e-2},
    ],
    ids=["gqa", "plain", "wide heads", "tied", "rope and eps"],
)
def test_logits_are_those_of_hugging_face(
    tokenizer: PreTrainedTokenizerBase, prompt: SoftPrompt, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = make_llama(tokenizer, tmp_path, **changes)
    theirs = LlamaForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        embeddings = torch.cat([prompt.vectors.expand(2, -1, -1), theirs.get_input_embeddings()(TOKENS)], dim=1)
        expected = theirs(inputs_embeds=embeddings).logits
        with prompted(load_model(str(folder), device="cpu"), prompt) as run:
            found = run(TOKENS)
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_logits_are_those_of_peft(llama: Path, hf_model: LlamaForCausalLM, prompt: SoftPrompt, tmp_path: Path) -> None:
    from peft import PeftModel

    prompt.save_pretrained(tmp_path, base_model=str(llama))
    expected = PeftModel.from_pretrained(hf_model, tmp_path).eval()(input_ids=TOKENS).logits
    with prompted(load_model(str(llama), device="cpu"), load_prompt(str(tmp_path))) as run:
        torch.testing.assert_close(run(TOKENS), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_of_peft_loads(llama: Path, hf_model: LlamaForCausalLM, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, TaskType, get_peft_model

    theirs = get_peft_model(hf_model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4))
    theirs.save_pretrained(tmp_path)
    found = load_prompt(str(tmp_path))
    assert torch.equal(found.vectors, theirs.get_prompt_embedding_to_save("default"))
    with prompted(load_model(str(llama), device="cpu"), found) as run:
        torch.testing.assert_close(run(TOKENS), theirs.eval()(input_ids=TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_text_is_that_of_hugging_face(llama: Path, hf_model: LlamaForCausalLM, prompt: SoftPrompt, problems) -> None:
    model = load_model(str(llama), device="cpu")
    for run in generate(model, problems[:4], prompt, max_new_tokens=20, progress=False):
        question = question_tokens(model, run.problem.question)
        embeddings = torch.cat([prompt.vectors, hf_model.get_input_embeddings()(question)])[None]
        expected = hf_model.generate(inputs_embeds=embeddings, max_new_tokens=20, do_sample=False)[0]
        assert run.generated_tokens.tolist() == expected.tolist()


def test_loaded_model_is_frozen_and_unfolded(llama: Path, hf_model: LlamaForCausalLM) -> None:
    model = load_model(str(llama), device="cpu")
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training
    assert torch.equal(model.blocks[0].ln1.w, hf_model.model.layers[0].input_layernorm.weight)
    assert load_model(str(llama), device="cpu", dtype=torch.bfloat16).W_E.dtype == torch.bfloat16


@pytest.mark.usefixtures("needs_hooked")
@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}])
def test_biases_that_would_be_dropped_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = make_llama(tokenizer, tmp_path, **changes)
    with pytest.raises(DPCInterpError, match="bias"):
        load_model(str(folder), device="cpu")
