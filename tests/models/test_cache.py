"""The decoding cache against TransformerLens's own: the same logits in every pass, to rounding."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from dpc_interp import Problem, SoftPrompt, analyse, generate
from dpc_interp.models.cache import SPARE_POSITIONS, RotatedCacheEntry
from dpc_interp.models.hooked import CachedDecoding
from dpc_interp.models.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("needs_hooked")
BATCH, FIRST = 3, 7
PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7, [0, 1, 1, 1, 1, 1, 1]])


class TheirDecoding:
    """The interface of `CachedDecoding` over TransformerLens's cache."""

    def __init__(self, model: HookedTransformer):
        self._model = model
        self._cache = TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, BATCH)

    def __call__(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(tokens) if mask is None else mask
        return self._model(tokens, attention_mask=mask, past_kv_cache=self._cache, prepend_bos=False)

    def select_rows(self, rows: Tensor) -> None:
        for entry in self._cache.entries:
            entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]
        self._cache.previous_attention_mask = self._cache.previous_attention_mask[rows]


def decode(
    model: HookedTransformer,
    read: CachedDecoding | TheirDecoding,
    n: int = SPARE_POSITIONS + 6,
    mask: Tensor | None = PADDED,
) -> list[Tensor]:
    """Logits of a first pass and of `n` single tokens, more than the first buffer holds; row 1 leaves on the way."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, model.cfg.d_vocab, (BATCH, FIRST + n), generator=generator)
    logits = [read(tokens[:, :FIRST], mask)]
    for column in range(FIRST, FIRST + n):
        if column == FIRST + 3:
            rows = torch.tensor([0, 2])
            read.select_rows(rows)
            tokens = tokens[rows]
        logits.append(read(tokens[:, column : column + 1]))
    return logits


@pytest.mark.parametrize("mask", [PADDED, None], ids=["padded", "unpadded"])
@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
@torch.no_grad()
def test_logits_equal_those_of_transformer_lens(
    build: Callable[..., HookedTransformer], kind: str, mask: Tensor | None, unchanged: Callable
) -> None:
    model = build(kind)
    with unchanged(model):
        all_ours = decode(model, CachedDecoding(model, BATCH), mask=mask)
        all_theirs = decode(model, TheirDecoding(model), mask=mask)
        assert len(all_ours) == SPARE_POSITIONS + 7
        for ours, theirs in zip(all_ours, all_theirs, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_layer_class_with_its_own_rotation_is_called(
    build: Callable[..., HookedTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("gqa")
    plain = decode(model, CachedDecoding(model, BATCH), 5)
    layer_class = type(model.blocks[0].attn)
    rotate = layer_class.apply_rotary
    monkeypatch.setattr(layer_class, "apply_rotary", lambda self, x, *rest: 0.5 * rotate(self, x, *rest))
    all_theirs = decode(model, TheirDecoding(model), 5)
    for ours, theirs, before in zip(decode(model, CachedDecoding(model, BATCH), 5), all_theirs, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(ours, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mask", [PADDED, None], ids=["padded", "unpadded"])
@pytest.mark.parametrize("options", [{"rotary_dim": 2}, {"rotary_adjacent_pairs": True}], ids=["part", "adjacent"])
@torch.no_grad()
def test_other_rotations(build: Callable[..., HookedTransformer], options: dict, mask: Tensor | None) -> None:
    """Of a part of each head, and of neighbouring numbers, as in GPT-J."""
    model = build("plain", **options)
    pairs = zip(
        decode(model, CachedDecoding(model, BATCH), 5, mask), decode(model, TheirDecoding(model), 5, mask), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_replaced_rotate_every_two_is_called(build: Callable[..., HookedTransformer]) -> None:
    model = build("gqa")
    before = decode(model, CachedDecoding(model, BATCH), 5)
    for block in model.blocks:
        block.attn.rotate_every_two = torch.zeros_like
    pairs = zip(decode(model, CachedDecoding(model, BATCH), 5), decode(model, TheirDecoding(model), 5), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(theirs, before[-1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_dynamic_ntk_rotates_all_keys_in_every_pass(build: Callable[..., HookedTransformer]) -> None:
    """There the rotation of a key depends on the length, which grows beyond the trained 8 positions."""
    model = build("plain", use_dynamic_ntk_rope=True, train_seq_length=8)
    pairs = zip(decode(model, CachedDecoding(model, BATCH), 12), decode(model, TheirDecoding(model), 12), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_transformer_lens(build: Callable[..., HookedTransformer]) -> None:
    """Through keys and values that were cached in an earlier pass."""
    model = build("gqa")
    slopes = []
    for read in (CachedDecoding(model, BATCH), TheirDecoding(model)):
        scale = torch.ones(1, requires_grad=True)
        with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook, scale=scale: x * scale)]):
            logits = decode(model, read, 3)
        slopes.append(torch.autograd.grad(torch.cat([row.flatten() for row in logits]).square().sum(), scale)[0])
    assert slopes[1].abs() > 1
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=0)


@torch.no_grad()
def test_hook_at_the_rotated_keys(build: Callable[..., HookedTransformer]) -> None:
    """It sees all keys in every pass, and its writes do not stay in the cache."""
    model = build("gqa")
    n_keys: list[int] = []

    def halve(keys: Tensor, hook: object) -> None:
        n_keys.append(keys.shape[1])
        keys[:, 3] *= 0.5  # a position without padding in every row

    results = []
    for read in (CachedDecoding(model, BATCH), TheirDecoding(model)):
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_rot_k", halve)]):
            results.append(decode(model, read, n=5))
    assert n_keys == list(range(FIRST, FIRST + 6)) * 2
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    plain = decode(model, CachedDecoding(model, BATCH), n=5)
    assert (plain[-1] - results[0][-1]).abs().max() > 1e-3


def test_layers_are_restored_on_an_exception(build: Callable[..., HookedTransformer]) -> None:
    model = build("gqa")
    before = [dict(vars(block.attn)) for block in model.blocks]

    def fail(value: Tensor, hook: object) -> Tensor:
        raise KeyboardInterrupt

    read = CachedDecoding(model, BATCH)
    with model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", fail)]), pytest.raises(KeyboardInterrupt):
        read(torch.ones(BATCH, FIRST, dtype=torch.long), PADDED)
    assert [vars(block.attn) for block in model.blocks] == before


@pytest.mark.parametrize("name", ["apply_rotary", "calculate_attention_scores", "calculate_z_scores"])
@torch.no_grad()
def test_method_replaced_by_the_caller_takes_precedence(
    build: Callable[..., HookedTransformer], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = build("gqa")
    plain = decode(model, CachedDecoding(model, BATCH), n=5)
    attention = model.blocks[1].attn
    method = getattr(attention, name)
    monkeypatch.setattr(attention, name, lambda *args: 0.5 * method(*args))
    replacement = vars(attention)[name]
    all_ours = decode(model, CachedDecoding(model, BATCH), n=5)
    for ours, theirs, before in zip(all_ours, decode(model, TheirDecoding(model), n=5), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(ours, before, rtol=1e-3, atol=1e-3)
    assert vars(attention)[name] is replacement


@torch.no_grad()
def test_hook_points_have_the_same_shapes(build: Callable[..., HookedTransformer]) -> None:
    """Every hook point fires as without a cache, those of the pattern included."""
    model = build("gqa")
    tokens = torch.ones(BATCH, FIRST, dtype=torch.long)
    shapes: dict[str, tuple[int, ...]] = {}
    record = (lambda name: ".attn." in name, lambda value, hook: shapes.update({hook.name: tuple(value.shape)}))
    with model.hooks(fwd_hooks=[record]):
        model(tokens)
        expected = dict(shapes)
        shapes.clear()
        CachedDecoding(model, BATCH)(tokens)
    assert shapes == expected


@torch.no_grad()
def test_each_key_is_rotated_once(build: Callable[..., HookedTransformer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass rotates the queries and the keys of its new tokens, and no others."""
    model = build("gqa")
    n_rotated: list[int] = []
    rotate = RotatedCacheEntry._rotate

    def record(self: RotatedCacheEntry, x: Tensor, start: int) -> Tensor:
        n_rotated.append(x.shape[1])
        return rotate(self, x, start)

    monkeypatch.setattr(RotatedCacheEntry, "_rotate", record)
    decode(model, CachedDecoding(model, BATCH), n=4)
    assert n_rotated == [FIRST, FIRST] * model.cfg.n_layers + [1, 1] * model.cfg.n_layers * 4


# Settings of TransformerLens that change how an attention layer is computed, and not what it computes


SETTINGS = ["ungroup_grouped_query_attention", "use_split_qkv_input", "use_attn_result", "use_hook_mlp_in"]
COMBINATIONS = [
    *([setting] for setting in SETTINGS),
    ["use_attn_in", "ungroup_grouped_query_attention"],
    ["ungroup_grouped_query_attention", "use_split_qkv_input"],
    SETTINGS,
]


@pytest.mark.parametrize("settings", COMBINATIONS, ids=" ".join)
def test_settings_of_the_layers_change_no_number(
    build: Callable[..., HookedTransformer], prompt: SoftPrompt, problems: list[Problem], settings: list[str]
) -> None:
    kind = "plain" if "use_attn_in" in settings else "gqa"  # TransformerLens has no attn_in with grouped queries
    before, after = build(kind), build(kind)
    for setting in settings:
        getattr(after, f"set_{setting}")(True)
    for mask in (PADDED, None):
        expected = decode(before, CachedDecoding(before, BATCH), mask=mask)
        for mine, theirs in zip(decode(after, CachedDecoding(after, BATCH), mask=mask), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    runs = [generate(model, problems[:4], prompt, max_new_tokens=12, progress=False) for model in (before, after)]
    assert [run.text for run in runs[0]] == [run.text for run in runs[1]]
    flows = [analyse(model, runs[0], prompt, progress=False).flow for model in (before, after)]
    pd.testing.assert_frame_equal(*flows, rtol=1e-4, atol=1e-7)
    assert "get_pos_offset" not in vars(after)


def test_hooks_see_a_key_of_every_head_where_they_are_ungrouped(build: Callable[..., HookedTransformer]) -> None:
    """An edit of one head's key, which is the purpose of the setting, reaches later passes through the cache."""
    model = build("gqa", ungroup_grouped_query_attention=True)

    def silence(key: Tensor, hook: object) -> Tensor:
        assert key.shape[2] == 4
        return torch.cat([torch.zeros_like(key[:, :, :1]), key[:, :, 1:]], dim=2)

    tokens = torch.arange(3, 19).view(2, 8)
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_k", silence)]):
        expected = model(tokens)
        assert not torch.allclose(expected, build("gqa")(tokens))
        cache = CachedDecoding(model, 2)
        first, second = cache(tokens[:, :5]), cache(tokens[:, 5:])
    torch.testing.assert_close(torch.cat([first, second], dim=1), expected, rtol=1e-4, atol=1e-5)


def test_passes_within_a_hook_have_their_own_masks_and_caches(build: Callable[..., HookedTransformer]) -> None:
    """A left-padded pass, and one of another cache, while an unpadded batch is decoded."""
    model = build("gqa")
    tokens = torch.arange(3, 19).view(2, 8)
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    expected = model(tokens, attention_mask=mask)
    other, cache, inside = CachedDecoding(model, 2), CachedDecoding(model, 2), []
    other(tokens[:, :5])
    cache(tokens[:, :5])

    def call(resid: Tensor, hook: object) -> None:
        if not inside:
            inside.append(None)
            inside[:] = [model(tokens, attention_mask=mask), other(tokens[:, 5:])]

    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", call)]):
        logits = cache(tokens[:, 5:])
    torch.testing.assert_close(inside[0][mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inside[1], model(tokens)[:, 5:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, inside[1], rtol=1e-4, atol=1e-5)


def test_a_pass_without_the_cache_within_a_hook_has_its_own_positions(build: Callable[..., HookedTransformer]) -> None:
    model = build("gqa", ungroup_grouped_query_attention=True)
    tokens = torch.arange(3, 19).view(2, 8)
    plain, inside = model(tokens), []

    def call(resid: Tensor, hook: object) -> None:
        if not inside:
            inside.append(None)
            inside[0] = model(tokens)

    cache = CachedDecoding(model, 2)
    cache(tokens[:, :5])
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", call)]):
        cache(tokens[:, 5:])
    torch.testing.assert_close(inside[0], plain, rtol=1e-4, atol=1e-5)
