"""Shapes and limits of a model, and decoding in several passes, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from dpc_interp import DPCInterpError, SoftPrompt, check_model, load_model, prompted, saliency
from dpc_interp.errors import ContextLengthError
from dpc_interp.models.hooked import (
    CachedDecoding,
    HookedModel,
    attention_span,
    check_length,
    mlp_shape,
    n_block_weights,
    suggest_pattern_fix,
    tokenizer_of,
    use_pattern_hooks,
)

TOKENS = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(7))


def assert_near(logits: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_model_without_a_tokenizer_raises(build: Callable[..., HookedModel], tokenizer) -> None:
    model = build("gqa")
    assert tokenizer_of(model) is tokenizer
    model.tokenizer = None
    with pytest.raises(DPCInterpError, match="has no tokenizer"):
        tokenizer_of(model)


@pytest.mark.usefixtures("needs_hooked")
def test_attention_span_of_a_hooked_transformer(build: Callable[..., HookedModel]) -> None:
    assert attention_span(build("gqa")) == 224
    local = {"window_size": 6, "attn_types": ["local", "global", "local"]}
    assert attention_span(build("gqa", use_local_attn=True, **local)) == 6


def test_attention_span_of_a_bridge(hugging_face: Callable, bridge: Callable) -> None:
    assert [attention_span(bridge(hugging_face(family))) for family in ("llama", "mistral", "gpt2")] == [224, 8, 224]


@pytest.mark.usefixtures("needs_hooked")
@pytest.mark.parametrize(("kind", "shape"), [("plain", (3, 32)), ("learned", (2, 32))])
def test_block_weights_are_counted(build: Callable[..., HookedModel], kind: str, shape: tuple[int, int]) -> None:
    model = build(kind)
    assert mlp_shape(model) == shape
    matrices = [weight for name, weight in model.blocks[0].named_parameters() if ".W_" in name]
    assert n_block_weights(model) == sum(weight.numel() for weight in matrices)


def test_grouped_keys_count_once_per_query_head(build: Callable[..., HookedModel]) -> None:
    """4 matrices of 16 x (4 heads x 4) and 3 of 16 x 32, however many key heads there are."""
    assert n_block_weights(build("gqa")) == n_block_weights(build("plain")) == 4 * 16 * 16 + 3 * 16 * 32


def test_length_up_to_the_context(build: Callable[..., HookedModel]) -> None:
    model = build("gqa")
    check_length(model, 224)
    with pytest.raises(ContextLengthError, match="225 positions exceed the model's context of 224"):
        check_length(model, 225)


@torch.no_grad()
def test_passes_in_pieces_equal_one_pass(any_model: HookedModel, unchanged: Callable) -> None:
    expected = any_model(TOKENS)
    with unchanged(any_model):
        read = CachedDecoding(any_model, 2)
        pieces = [read(TOKENS[:, start:stop]) for start, stop in ((0, 4), (4, 5), (5, 9))]
    assert_near(torch.cat(pieces, dim=1), expected)


@torch.no_grad()
def test_padding_is_not_attended_to(any_model: HookedModel) -> None:
    """A left-padded row gives the logits of the same row without padding, in the first pass and after it."""
    row = TOKENS[:1, 3:]
    expected = any_model(row)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :3] = 0
    first = torch.stack([torch.cat([torch.zeros(3, dtype=torch.long), row[0, :3]]), TOKENS[1, :6]])
    read = CachedDecoding(any_model, 2)
    assert_near(read(first, mask)[:1, 3:], expected[:, :3])
    assert_near(read(torch.cat([row[:, 3:], TOKENS[1:, 6:]]))[:1], expected[:, 3:])


@torch.no_grad()
def test_selected_rows_may_repeat(any_model: HookedModel) -> None:
    rows = torch.tensor([1, 0, 1])
    following = torch.tensor([[5, 6], [7, 8], [9, 10]])
    read = CachedDecoding(any_model, 2)
    read(TOKENS)
    read.select_rows(rows)
    expected = any_model(torch.cat([TOKENS[rows], following], dim=1))[:, -2:]
    assert_near(read(following), expected)


@torch.no_grad()
def test_fork_and_original_are_independent(any_model: HookedModel) -> None:
    """Both read on from the same tokens, in turn, each with its own continuation."""
    read = CachedDecoding(any_model, 2)
    read(TOKENS)
    forked = read.fork(torch.tensor([1]))
    ours, theirs = torch.tensor([[5, 6], [7, 8]]), torch.tensor([[9, 10]])
    expected = any_model(torch.cat([TOKENS, ours], dim=1))[:, -2:]
    expected_fork = any_model(torch.cat([TOKENS[1:], theirs], dim=1))[:, -2:]
    logits, logits_fork = [], []
    for column in range(2):
        logits_fork.append(forked(theirs[:, column : column + 1]))
        logits.append(read(ours[:, column : column + 1]))
    assert_near(torch.cat(logits, dim=1), expected)
    assert_near(torch.cat(logits_fork, dim=1), expected_fork)


@torch.no_grad()
def test_masked_tokens_leave_no_trace(any_model: HookedModel) -> None:
    """Row 0 drops its last two tokens, row 1 its last one; later tokens reuse their positions."""
    read = CachedDecoding(any_model, 2)
    read(TOKENS[:, :5])
    read(TOKENS[:, 5:8])
    read.mask_last_tokens(torch.tensor([[False, True, True], [False, False, True]]))
    following = torch.tensor([[11, 12], [13, 14]])
    logits = read(following)
    for row, n_read in ((0, 6), (1, 7)):
        sequence = torch.cat([TOKENS[row, :n_read], following[row]])[None]
        assert_near(logits[row : row + 1], any_model(sequence)[:, -2:])


SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4}
OBSERVED: dict[str, dict[str, object]] = {
    "OPT": {"hidden_size": 16, "ffn_dim": 32, **SIZES},
    "XGLM": {"d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 4},
    "GPTJ": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 224, "rotary_dim": 2},
    "GPTNeo": {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "ModernBertDecoder": {"hidden_size": 16, "intermediate_size": 32, **SIZES},
}
"""Families whose patterns a bridge only observes."""


def observed(family: str, tokenizer, folder: Path) -> PreTrainedModel:
    """A random model of a family, saved with its tokenizer."""
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **special, **OBSERVED[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight) + (weight.ndim == 1))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", OBSERVED)
def test_patterns_that_a_bridge_observes_are_put_on_the_loss_path(family: str, tokenizer, tmp_path: Path) -> None:
    """The logits stay Hugging Face's, and saliency is that of Hugging Face's own attention weights."""
    hf_model = observed(family, tokenizer, tmp_path)
    model = load_model(str(tmp_path), backend="bridge", device="cpu")
    tokens, vectors = torch.randint(3, 200, (1, 9)), torch.randn(3, model.W_E.shape[1])
    hf_model.set_attn_implementation("eager")
    embedded = torch.cat([vectors, hf_model.get_input_embeddings()(tokens[0])])[None]
    output = hf_model(inputs_embeds=embedded, output_attentions=True)
    with prompted(model, SoftPrompt(vectors)) as forward:
        assert_near(forward(tokens), output.logits.detach())
    if family == "XGLM":  # it returns a copy of its attention weights, so that they have no gradient
        assert check_model(model).passed
        return
    nll = torch.nn.functional.cross_entropy(output.logits[0, 6:-1], tokens[0, 4:])
    grads = torch.autograd.grad(nll, output.attentions)
    expected = torch.stack([(a * g).abs().sum(1)[0] for a, g in zip(output.attentions, grads, strict=True)])
    computed = saliency(model, tokens[0], SoftPrompt(vectors), 4, head_reduction="sum_of_abs")
    strictly_lower = torch.ones_like(expected).tril(-1)
    assert expected.max() > 1e-3
    torch.testing.assert_close(computed, expected.detach() * strictly_lower, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["OPT", "GPTNeo"])
def test_a_bridge_of_observed_patterns_passes_every_check(family: str, tokenizer, tmp_path: Path) -> None:
    """Edits of patterns, their gradients, padding and caches."""
    observed(family, tokenizer, tmp_path)
    check = check_model(load_model(str(tmp_path), backend="bridge", device="cpu"))
    assert check.passed, str(check)


@pytest.mark.filterwarnings("ignore")
def test_a_bridge_of_ones_own_is_sent_to_load_model(bridge: Callable, tokenizer, tmp_path: Path) -> None:
    hf_model = observed("GPTJ", tokenizer, tmp_path).requires_grad_(False)
    hf_model.set_attn_implementation("eager")
    model = bridge(hf_model)
    with pytest.raises(
        DPCInterpError, match=r"no gradient .* layer 0, .*; load it with load_model\(folder, "
    ) as caught:
        saliency(model, TOKENS[0], SoftPrompt(torch.randn(3, 16)), 4)
    assert len(str(caught.value)) < 240
    use_pattern_hooks(model)
    assert saliency(model, TOKENS[0], SoftPrompt(torch.randn(3, 16)), 4).abs().max() > 0


def test_advice_about_patterns(model: HookedModel, hugging_face: Callable, bridge: Callable) -> None:
    assert "check the hooks" in suggest_pattern_fix(model)
    assert "another family" in suggest_pattern_fix(bridge(hugging_face("llama")))
