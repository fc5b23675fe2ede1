"""Under a PEFT adapter and a template, texts are those of PEFT's own `generate`, whatever the tokenizer adds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, TaskType, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dpc_interp import Problem, generate, load_model, load_problems, load_prompt, tune_prompt

N_NEW, N_QUESTIONS = 12, 20
TEMPLATE = "Question: {question}\nAnswer:"
SPECIAL = {
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "qwen2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "smollm2": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
}
"""Special tokens of each family; only Llama's tokenizer puts its BOS before a text."""


@pytest.fixture(scope="module")
def questions() -> list[Problem]:
    return load_problems("story", n=N_QUESTIONS)


def build_tokenizer(family: str, texts: list[str]) -> PreTrainedTokenizerBase:
    """A small tokenizer made as that of a family: byte-level BPE, or BPE over `▁` with byte fallback."""
    special = list(dict.fromkeys(SPECIAL[family].values()))
    if family == "llama":
        backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    if family == "llama":
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **{"pad_token": special[0]} | SPECIAL[family]
    )


@pytest.mark.parametrize("family", SPECIAL)
def test_texts_are_those_of_peft(family: str, questions: list[Problem], needs_hooked: None, tmp_path: Path) -> None:
    texts = [problem.question + problem.rationale for problem in questions] + [TEMPLATE]
    tokenizer = build_tokenizer(family, texts)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.4, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tuning = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5)
    trained = get_peft_model(LlamaForCausalLM.from_pretrained(tmp_path / "model"), tuning)
    torch.nn.init.normal_(trained.prompt_encoder["default"].embedding.weight, std=0.5)
    trained.save_pretrained(tmp_path / "adapter")

    theirs = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tmp_path / "model"), tmp_path / "adapter")
    model = load_model(tmp_path / "model", device="cpu")
    runs = generate(
        model, questions, load_prompt(tmp_path / "adapter"), template=TEMPLATE, max_new_tokens=N_NEW,
        stop_strings=(), progress=False,
    )  # fmt: skip
    reader = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    equal = 0
    for run in runs:
        read = reader(TEMPLATE.replace("{question}", run.problem.question), return_tensors="pt").input_ids
        assert run.question_tokens.tolist() == read[0].tolist()
        mask = torch.ones_like(read)
        written = theirs.eval().generate(input_ids=read, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False)
        equal += run.generated_tokens.tolist() == written[0, read.shape[1] :].tolist()
    assert equal == N_QUESTIONS
    assert len({run.text for run in runs}) > 5
    starts_with_bos = int(runs[0].question_tokens[0]) == tokenizer.bos_token_id
    assert starts_with_bos == (family == "llama"), "the tokenizer's own rule"


def test_a_prompt_is_read_in_the_format_it_was_tuned_in(model, problems: list[Problem], tmp_path: Path) -> None:
    """Also after it was saved and loaded; the template of a call comes first."""
    options = {"max_steps": 2, "progress": False}
    prompt = tune_prompt(model, problems, 3, template="{question} now\n", prepend_bos=False, **options)
    plain = tune_prompt(model, problems, 3, **options)
    assert not torch.equal(prompt.vectors, plain.vectors)
    prompt.save_pretrained(tmp_path)
    loaded = load_prompt(tmp_path)
    assert (loaded.recipe["template"], loaded.recipe["prepend_bos"]) == ("{question} now\n", False)
    (run,) = generate(model, problems[:1], loaded, max_new_tokens=2, progress=False)
    assert model.tokenizer.decode(run.question_tokens) == problems[0].question + " now\n"
    (run,) = generate(model, problems[:1], loaded, template="{question}\n", max_new_tokens=2, progress=False)
    assert model.tokenizer.decode(run.question_tokens) == problems[0].question + "\n"
    (run,) = generate(model, problems[:1], plain, max_new_tokens=2, progress=False)
    assert model.tokenizer.decode(run.question_tokens) == "<bos>" + problems[0].question + "\n"
