"""Vectors enter a bridge where PEFT puts them, whatever the family does to its embeddings; other models are refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpc_interp import (
    DPCInterpError,
    Problem,
    SoftPrompt,
    analyse,
    check_model,
    generate,
    load_model,
    load_prompt,
    prompted,
    saliency,
    tune_prompt,
)
from dpc_interp.prompts.entry import _VERIFIED, check_entry, embed_hook_name, prompt_width

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 224}
BLOOM = {"hidden_size": 16, "n_layer": 2, "n_head": 4}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 224}
OPT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 32}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "LayerNorm after the table": ("Bloom", BLOOM),
    "scaled in the table, Gemma": ("Gemma", GROUPED),
    "scaled in the table, Gemma 2": ("Gemma2", GROUPED | {"query_pre_attn_scalar": 4}),
    "multiplied after the table": ("Granite", GROUPED | {"embedding_multiplier": 3.0}),
    "positions added after the table": ("GPT2", GPT2),
    "ALiBi": ("Mpt", {"d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 224}),
    "rotary": ("Falcon", {**{k: SIZES[k] for k in list(SIZES)[:3]}, "alibi": False}),
    "projected after the table": ("OPT", OPT | {"word_embed_proj_dim": 8, "do_layer_norm_before": False}),
}


@pytest.fixture(scope="module")
def make(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """The Hugging Face model of a family and the bridge loaded from its folder."""

    def make(family: str, options: dict[str, object]) -> tuple[PreTrainedModel, TransformerBridge, Path]:
        torch.manual_seed(3)
        special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **special, **options)
        head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
        hf_model = getattr(transformers, family + head)(config).eval().requires_grad_(False)
        for weight in hf_model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight) + (weight.ndim == 1))
        folder = tmp_path_factory.mktemp(family)
        hf_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return hf_model, load_model(str(folder), backend="bridge", device="cpu"), folder

    return make


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_are_those_of_peft(kind: str, make: Callable, tmp_path: Path) -> None:
    hf_model, model, _ = make(*FAMILIES[kind])
    width = hf_model.get_input_embeddings().weight.shape[1]
    assert prompt_width(model) == width
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=width, num_attention_heads=4, num_layers=2
    )
    theirs = get_peft_model(deepcopy(hf_model), config).eval()
    theirs.prompt_encoder["default"].embedding.weight.copy_(torch.randn(3, width))
    theirs.save_pretrained(tmp_path)
    expected = theirs(input_ids=TOKENS).logits
    prompt = load_prompt(tmp_path, model)
    with prompted(model, prompt) as forward:
        torch.testing.assert_close(forward(TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert (expected[:, 3:] - hf_model(TOKENS).logits).abs().max() > 0.01
    written = generate(model, [Problem("mine", "Tom has 9 apples.", "", "9", 1, "a")], prompt, max_new_tokens=4)[0]
    question = written.question_tokens[None]
    embedded = torch.cat([prompt.vectors, hf_model.get_input_embeddings()(question[0])])[None]
    first = hf_model(inputs_embeds=embedded).logits[0, -1].argmax()
    assert written.generated_tokens[0] == first


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LayerNorm after the table", "scaled in the table, Gemma"])
def test_a_text_as_a_prompt_is_that_text(kind: str, make: Callable) -> None:
    """The vectors of a text give the logits of its tokens, also where the table scales its rows."""
    hf_model, model, _ = make(*FAMILIES[kind])
    text = "Tom has 9 apples."
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False).input_ids])
    with prompted(model, SoftPrompt.from_text(model, text)) as forward:
        logits = forward(TOKENS)
    expected = hf_model(torch.cat([ids, TOKENS], dim=1)).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def bloom(make: Callable) -> TransformerBridge:
    return make(*FAMILIES["LayerNorm after the table"])[1]


@pytest.mark.filterwarnings("ignore")
def test_bloom_passes_every_check(bloom: TransformerBridge) -> None:
    """Padding, caches and the prefilled prompt write at the same place."""
    check = check_model(bloom, prompt=SoftPrompt(torch.randn(4, 16)))
    assert check.passed, str(check)


@pytest.mark.filterwarnings("ignore")
def test_bloom_writes_before_its_layer_norm(bloom: TransformerBridge) -> None:
    """At `hook_embed`, after the LayerNorm, the same vectors give other logits."""
    assert embed_hook_name(bloom) == "embed.hook_out"
    vectors = torch.randn(3, 16)
    tokens = torch.cat([torch.zeros(1, 3, dtype=torch.long), TOKENS], dim=1)

    def write(embed: torch.Tensor, hook: object) -> torch.Tensor:
        return torch.cat([vectors[None], embed[:, 3:]], dim=1)

    with bloom.hooks(fwd_hooks=[("hook_embed", write)]):
        after = bloom(tokens)
    with prompted(bloom, SoftPrompt(vectors)) as forward:
        assert (forward(TOKENS) - after).abs().max() > 0.1


def spoil(model: TransformerBridge, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Make the wrapped model treat `inputs_embeds` otherwise than the embeddings of its tokens."""
    wrapped = model.original_model
    forward = wrapped.forward

    def doubled(
        input_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None, **options: object
    ) -> object:
        if inputs_embeds is not None:
            if kind == "refuses them":
                raise ValueError("no input_ids")
            inputs_embeds = 2 * inputs_embeds
        return forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)

    def of_tokens(input_ids: torch.Tensor, **options: object) -> object:
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(wrapped, "forward", of_tokens if kind == "has no such input" else doubled)


USES: dict[str, Callable] = {
    "prompted": lambda m, prompt, problems: prompted(m, prompt).__enter__(),
    "generate": lambda m, prompt, problems: generate(m, problems, prompt, max_new_tokens=2, progress=False),
    "saliency": lambda m, prompt, problems: saliency(m, TOKENS[0], prompt, 2),
    "tune_prompt": lambda m, prompt, problems: tune_prompt(m, problems, 3, max_steps=1, progress=False),
    "analyse": lambda m, prompt, problems: analyse(
        m, generate(m, problems, max_new_tokens=4, progress=False), prompt, progress=False
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("doubles them", "treats inputs_embeds, .* otherwise than embeddings of tokens"),
        ("refuses them", r"cannot read inputs_embeds \(ValueError\)"),
        ("has no such input", "cannot read inputs_embeds, so no soft prompt either"),
    ],
)
def test_a_model_of_another_kind_is_refused_at_the_first_use(
    use: str,
    kind: str,
    match: str,
    hugging_face: Callable,
    bridge: Callable,
    prompt: SoftPrompt,
    problems: list[Problem],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = bridge(hugging_face("llama"))
    spoil(model, monkeypatch, kind)
    with pytest.raises(DPCInterpError, match=match) as caught:
        USES[use](model, prompt, problems)
    assert "\n" not in str(caught.value)
    assert model not in _VERIFIED


def test_the_check_runs_once_and_leaves_no_trace(
    hugging_face: Callable, bridge: Callable, prompt: SoftPrompt, unchanged: Callable
) -> None:
    model = bridge(hugging_face("gpt2"))
    seen: list[int] = []
    passes: list[int] = []
    model.original_model.register_forward_pre_hook(lambda *_: passes.append(1))
    model.original_model.train()
    training = {name: module.training for name, module in model.original_model.named_modules()}
    with model.hooks(fwd_hooks=[("hook_embed", lambda embed, hook: seen.append(1))]):
        check_entry(model)
        check_entry(model)
        assert (len(seen), len(passes)) == (0, 2)  # one pass by way of the hook, one of inputs_embeds
        with prompted(model, prompt) as forward:
            forward(TOKENS)
        assert (len(seen), len(passes)) == (1, 3)
    assert {name: module.training for name, module in model.original_model.named_modules()} == training
    model.original_model.eval()
    fresh = bridge(hugging_face("gpt2"))
    with unchanged(fresh):
        check_entry(fresh)


def test_a_hooked_transformer_is_not_checked(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no other way in."""
    monkeypatch.setattr(type(model), "forward", lambda *_: pytest.fail("a forward pass"))
    check_entry(model)
    assert (embed_hook_name(model), prompt_width(model)) == ("hook_embed", 16)


def test_weights_that_are_not_finite_have_their_own_error(
    hugging_face: Callable, bridge: Callable, prompt: SoftPrompt
) -> None:
    model = bridge(hugging_face("llama"))
    model.original_model.lm_head.weight.data.fill_(float("nan"))
    check_entry(model)
    assert model not in _VERIFIED
