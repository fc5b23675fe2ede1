"""Fused attention against the pattern of the same model: logits, saliency, hooks, and what keeps a pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from dpc_interp import DPCInterpError, SoftPrompt
from dpc_interp.analysis.recorder import whole_map
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.attention import inputs as inputs_module
from dpc_interp.interventions.knockout import knocked_out
from dpc_interp.models import fused_attention as module
from dpc_interp.models.fused_attention import describe_attention, fused_attention, pattern_layers
from dpc_interp.models.hooked import CachedDecoding, HookedModel

FAMILIES = ("llama", "mistral", "qwen2", "gpt2", "multi-query")
BRIDGES = [f"{family} bridge" for family in FAMILIES[:-1]]
TOKENS = torch.randint(3, 200, (2, 40), generator=torch.Generator().manual_seed(0))  # longer than the window of 8
LEFT_PADDED = torch.ones(2, 40, dtype=torch.long)
LEFT_PADDED[1, :7] = 0


@pytest.fixture(scope="module", params=[*(f"{family} hooked" for family in FAMILIES), *BRIDGES])
def each(request: pytest.FixtureRequest, build, hugging_face, hooked, bridge) -> HookedModel:
    family, backend = request.param.rsplit(" ", 1)
    if family == "multi-query":
        return build("gqa", n_key_value_heads=1)
    return (hooked if backend == "hooked" else bridge)(hugging_face(family))


@contextmanager
def patterns(model: HookedModel) -> Iterator[list[Tensor]]:
    """A hook that reads every pattern."""
    seen: list[Tensor] = []
    with model.hooks(fwd_hooks=[(lambda name: name.endswith("attn.hook_pattern"), lambda p, hook: seen.append(p))]):
        yield seen


def random_edges(model: HookedModel, n_positions: int) -> dict[int, Tensor]:
    """A third of the edges at every layer but the first, other ones in each row."""
    generator = torch.Generator().manual_seed(1)
    shape = 2, n_positions, n_positions
    return {layer: (torch.rand(shape, generator=generator) < 0.3).tril(-1) for layer in range(1, model.cfg.n_layers)}


@contextmanager
def nested(model: HookedModel) -> Iterator[None]:
    """Two contexts, of which the outer one counts."""
    with fused_attention(model), fused_attention(model):
        yield


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rows", [512, 16], ids=["one call", "blocks of queries"])
@torch.no_grad()
def test_logits(each: HookedModel, padded: bool, rows: int, monkeypatch: pytest.MonkeyPatch, unchanged) -> None:
    monkeypatch.setattr(inputs_module, "MAX_MASKED_QUERIES", rows)
    mask = LEFT_PADDED if padded else None
    with patterns(each) as seen:
        expected = each(TOKENS, attention_mask=mask)
    assert seen
    assert pattern_layers(each) == {}, "otherwise patterns are compared with themselves"
    with unchanged(each), fused_attention(each):
        logits = each(TOKENS, attention_mask=mask)
    visible = torch.ones_like(TOKENS, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(logits[visible], expected[visible], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_decoding(each: HookedModel, padded: bool) -> None:
    mask = LEFT_PADDED[:, :12] if padded else None

    def decode() -> Tensor:
        read = CachedDecoding(each, 2)
        logits = [read(TOKENS[:, :12], mask)[:, -1:], read(TOKENS[:, 12:15])]
        return torch.cat([*logits, *(read(TOKENS[:, i : i + 1]) for i in range(15, 30))], dim=1)

    with patterns(each) as seen:
        expected = decode()
    assert len(seen) == 17 * each.cfg.n_layers
    torch.testing.assert_close(decode(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"prompt_rows": False}, {"gradient_checkpointing": True}], ids=str)
def test_saliency(each: HookedModel, prompt: SoftPrompt, options: dict[str, bool]) -> None:
    """Of rows of two lengths, within 1e-5 of the largest flow of a layer."""
    sequences = [TOKENS[0], TOKENS[1, :27]]

    def run() -> list[Tensor]:
        return saliency_pass(each, sequences, [9, 5], prompt.vectors, whole_map, **options).layers

    fused = run()
    with patterns(each) as seen:
        expected = run()
    assert len(seen) >= each.cfg.n_layers
    for layer, flow in zip(fused, expected, strict=True):
        assert flow.max() > 1e-5
        torch.testing.assert_close(layer, flow[:, -layer.shape[1] :], rtol=1e-5, atol=1e-5 * flow.max().item())


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_logits_without_edges(each: HookedModel, padded: bool, monkeypatch: pytest.MonkeyPatch, unchanged) -> None:
    monkeypatch.setattr(inputs_module, "MAX_MASKED_QUERIES", 16)
    mask = LEFT_PADDED if padded else None
    visible = torch.ones_like(TOKENS, dtype=torch.bool) if mask is None else mask.bool()
    edges = random_edges(each, 40)
    with patterns(each), knocked_out(each, edges):
        expected = each(TOKENS, attention_mask=mask)
    with unchanged(each), knocked_out(each, edges):
        assert describe_attention(each) == "fused"
        with fused_attention(each):
            logits = each(TOKENS, attention_mask=mask)
    assert (logits - each(TOKENS, attention_mask=mask))[visible].abs().max() > 1e-2
    torch.testing.assert_close(logits[visible], expected[visible], rtol=1e-5, atol=1e-5)


def test_saliency_without_edges(each: HookedModel, prompt: SoftPrompt) -> None:
    sequences, edges = [TOKENS[0], TOKENS[1]], random_edges(each, 40 + prompt.n_virtual)

    def run() -> list[Tensor]:
        with knocked_out(each, edges):
            return saliency_pass(each, sequences, [9, 5], prompt.vectors, whole_map, prompt_rows=True).layers

    fused = run()
    with patterns(each):
        expected = run()
    for i, (layer, flow) in enumerate(zip(fused, expected, strict=True)):
        assert (layer[edges[i]] == 0).all() if i in edges else (layer != 0).any()
        torch.testing.assert_close(layer, flow, rtol=1e-5, atol=1e-5 * flow.max().item())


def test_a_hook_sees_the_pattern(each: HookedModel, prompt: SoftPrompt) -> None:
    """Only its own layer keeps its pattern in a HookedTransformer; in a bridge every layer does."""
    seen: list[Tensor] = []
    with each.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: seen.append(pattern.detach()))]):
        reasons = pattern_layers(each)
        description = describe_attention(each)
        flows = saliency_pass(each, [TOKENS[0]], [9], prompt.vectors, whole_map).layers
    n_patterns = 1 if type(each).__name__ == "HookedTransformer" else each.cfg.n_layers
    assert set(reasons.values()) == {"a hook is on the pattern"}
    assert len(reasons) == n_patterns
    assert description == f"patterns in {n_patterns} of {each.cfg.n_layers} layers: a hook is on the pattern"
    assert len(flows) == each.cfg.n_layers
    (pattern,) = seen
    assert pattern.shape == (1, each.cfg.n_heads, 40 + prompt.n_virtual, 40 + prompt.n_virtual)
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert describe_attention(each) == "fused"


def test_other_hook_points_fire_in_fused_layers(each: HookedModel) -> None:
    """With the values that they have next to a pattern; hooks at z change the logits."""
    names = [f"blocks.0.attn.{name}" for name in ("hook_q", "hook_z")] + ["blocks.0.hook_attn_out"]
    values: list[dict[str, Tensor]] = []

    def logits() -> Tensor:
        values.append({})
        record = [(n, lambda x, hook: values[-1].update({hook.name: x.detach().clone()})) for n in names]
        with torch.no_grad(), each.hooks(fwd_hooks=record), fused_attention(each):
            return each(TOKENS)

    fused = logits()
    with patterns(each):
        expected = logits()
    assert list(values[0]) == list(values[1])
    for fused_value, value in zip(values[0].values(), values[1].values(), strict=True):
        torch.testing.assert_close(fused_value, value, rtol=1e-5, atol=1e-5)
    with (
        torch.no_grad(),
        each.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 2 * z)]),
        fused_attention(each),
    ):
        assert (each(TOKENS) - expected).abs().max() > 1e-3
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5)


def test_layers_are_restored(each: HookedModel, unchanged: Callable) -> None:
    def fail(resid: Tensor, hook: object) -> Tensor:
        raise KeyboardInterrupt

    hooks = [("blocks.1.hook_resid_pre", fail)]
    with unchanged(each), each.hooks(fwd_hooks=hooks), pytest.raises(KeyboardInterrupt), nested(each):
        each(TOKENS)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"attn_scores_soft_cap": 5.0}, "scores have a soft cap"),
        ({"positional_embedding_type": "alibi"}, "scores have a bias"),
        ({"attention_dir": "bidirectional"}, "attention is not causal"),
    ],
)
def test_architectures_that_keep_patterns(build, needs_hooked: None, changes: dict, why: str) -> None:
    model = build("plain", **changes)
    assert set(pattern_layers(model).values()) == {why}
    with torch.no_grad():
        expected = model(TOKENS)
        with fused_attention(model):
            assert torch.equal(model(TOKENS), expected)


def test_a_replaced_method_keeps_the_pattern(build, needs_hooked: None) -> None:
    model = build("plain")
    attention = model.blocks[0].attn
    vars(attention)["calculate_z_scores"] = attention.calculate_z_scores
    assert pattern_layers(model) == {0: "a method of the attention layer was replaced"}


def test_a_bridge_in_training_mode_keeps_patterns(hugging_face: Callable, bridge: Callable) -> None:
    """There Hugging Face drops out attention, which the fused function does not."""
    model = bridge(hugging_face("llama"))
    model.original_model.train()
    assert set(pattern_layers(model).values()) == {"the layer is in training mode, where it may drop out attention"}


def test_the_mask_of_a_pass_is_read_once() -> None:
    """On a GPU every reading waits for the device."""
    n_read = 0

    class Mask(Tensor):
        def all(self, *args, **kwargs):
            nonlocal n_read
            n_read += 1
            return super().all(*args, **kwargs)

    mask = module._Padding()
    given = LEFT_PADDED.as_subclass(Mask)
    seen = [mask.visible_keys(given) for _ in range(3)]
    assert n_read == 1
    assert all(visible is seen[0] for visible in seen)
    assert mask.visible_keys(torch.ones(2, 4)) is None
    assert mask.visible_keys(None) is None


def test_an_unknown_part_of_attention_is_refused() -> None:
    with pytest.raises(DPCInterpError, match="with softcap, which fused attention does not have; put a hook"):
        module._attention_function(torch.nn.Linear(1, 1), *torch.zeros(3, 1, 1, 2, 4), None, softcap=30.0)
    with pytest.raises(DPCInterpError, match="with indices, which"):
        module._attention_function(torch.nn.Linear(1, 1), *torch.zeros(3, 1, 1, 2, 4), None, indices=torch.zeros(1))
    with pytest.raises(DPCInterpError, match="with a mask of its own, which"):
        module._attention_function(torch.nn.Linear(1, 1), *torch.zeros(3, 1, 1, 2, 4), torch.zeros(1, 1, 2, 2))


def test_a_bridge_with_weights_of_its_own_keeps_patterns(hugging_face: Callable, bridge: Callable) -> None:
    """GPT-2 has one matrix for queries, keys and values; TransformerLens computes with its parts."""
    model = bridge(hugging_face("gpt2"))
    assert pattern_layers(model) == {}
    query: Any = model.blocks[1].attn.q
    query.weight = torch.nn.Parameter(2 * query.weight.detach(), requires_grad=False)
    reasons = pattern_layers(model)
    assert set(reasons.values()) == {"the bridge computes queries, keys and values with weights of its own"}
    expected = model(TOKENS)
    with fused_attention(model):
        assert torch.equal(model(TOKENS), expected)


def test_a_block_without_attention_is_not_fused(hugging_face: Callable, bridge: Callable) -> None:
    """Such as a state-space block of a hybrid model."""
    assert "no attention that" in module._why_bridge(bridge(hugging_face("llama")), None)


def test_a_pass_within_a_hook_sees_its_patterns(build: Callable, needs_hooked: None) -> None:
    model = build("gqa")
    _, expected = model.run_with_cache(TOKENS)
    caches: list[Any] = []

    def run_again(resid: Tensor, hook: object) -> None:
        if not caches:
            caches.append(None)
            caches[0] = model.run_with_cache(TOKENS, reset_hooks_end=False)[1]

    logits = model(TOKENS)
    with fused_attention(model), model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", run_again)]):
        again = model(TOKENS)
    torch.testing.assert_close(again, logits)
    for layer in range(3):
        name = f"blocks.{layer}.attn.hook_pattern"
        assert torch.equal(caches[0][name], expected[name])
