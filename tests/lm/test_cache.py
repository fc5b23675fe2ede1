"""Decoding's key and value cache against TransformerLens's own: the same numbers at every step.

Bit for bit, or to rounding where heads share keys, whose products are taken together.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from dpc_interp.lm.cache import ROOM
from dpc_interp.lm.hooked import CachedDecoding
from dpc_interp.lm.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("needs_hooked")
BATCH, FIRST = 3, 7
PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7, [0, 1, 1, 1, 1, 1, 1]])


def theirs(model: HookedTransformer) -> Callable[..., Tensor]:
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, BATCH)

    def read(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(tokens) if mask is None else mask
        return model(tokens, attention_mask=mask, past_kv_cache=cache, prepend_bos=False)

    def select(rows: Tensor) -> None:
        for entry in cache.entries:
            entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]
        cache.previous_attention_mask = cache.previous_attention_mask[rows]

    read.select = select  # type: ignore[attr-defined]
    return read


def steps(
    model: HookedTransformer,
    read: CachedDecoding | Callable[..., Tensor],
    n: int = ROOM + 6,
    mask: Tensor | None = PADDED,
) -> list[Tensor]:
    """Logits of a first pass and of `n` steps, past the room of the first buffer, a row leaving on the way."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, model.cfg.d_vocab, (BATCH, FIRST + n), generator=generator)
    found = [read(tokens[:, :FIRST], mask)]
    kept = torch.tensor([True, False, True])
    for column in range(FIRST, FIRST + n):
        if column == FIRST + 3:
            read.select(kept.nonzero()[:, 0])  # type: ignore[union-attr]
            tokens = tokens[kept]
        found.append(read(tokens[:, column : column + 1]))
    return found


@pytest.mark.parametrize("mask", [PADDED, None], ids=["padded", "whole"])
@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
@torch.no_grad()
def test_the_same_numbers(build: Callable[..., HookedTransformer], kind: str, mask: Tensor | None, unchanged) -> None:
    model = build(kind)
    bound = {"rtol": 1e-5, "atol": 1e-5} if kind == "gqa" else {"rtol": 0, "atol": 0}
    with unchanged(model):
        ours, theirs_ = (steps(model, read, mask=mask) for read in (CachedDecoding(model, BATCH), theirs(model)))
        pairs = list(zip(ours, theirs_, strict=True))
        assert len(pairs) == ROOM + 7
        for ours, expected in pairs:
            torch.testing.assert_close(ours, expected, **bound)


@torch.no_grad()
def test_a_hook_at_the_rotated_keys_acts_as_ever(build: Callable[..., HookedTransformer]) -> None:
    """It sees them all at every step, and what it writes into them does not stay in the cache."""
    model = build("gqa")
    seen: list[int] = []

    def halve(keys: Tensor, hook: object) -> None:
        seen.append(keys.shape[1])
        keys[:, 3] *= 0.5  # no padding in any row

    results = []
    for read in (CachedDecoding(model, BATCH), theirs(model)):
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_rot_k", halve)]):
            results.append(steps(model, read, n=5))
    assert seen == list(range(FIRST, FIRST + 6)) * 2
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    plain = steps(model, CachedDecoding(model, BATCH), n=5)
    assert not torch.equal(plain[-1], results[0][-1])


def test_nothing_stays_in_the_model(build: Callable[..., HookedTransformer]) -> None:
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
def test_a_method_of_the_callers_stays(
    build: Callable[..., HookedTransformer], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = build("gqa")
    plain = steps(model, CachedDecoding(model, BATCH), n=5)
    attention = model.blocks[1].attn
    method = getattr(attention, name)
    monkeypatch.setattr(attention, name, lambda *args: 0.5 * method(*args))
    pairs = zip(steps(model, CachedDecoding(model, BATCH), n=5), steps(model, theirs(model), n=5), plain, strict=True)
    for ours, expected, before in pairs:
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(ours, before, rtol=1e-3, atol=1e-3)
    assert vars(attention)[name] is not method


@torch.no_grad()
def test_keys_and_values_are_not_repeated(build: Callable[..., HookedTransformer], monkeypatch) -> None:
    """While every hook point of the layer fires, with the shapes that it has without a cache."""
    model = build("gqa")
    tokens = torch.ones(BATCH, FIRST, dtype=torch.long)
    seen: dict[str, tuple[int, ...]] = {}
    watch = (lambda name: ".attn." in name, lambda value, hook: seen.update({hook.name: tuple(value.shape)}))
    with model.hooks(fwd_hooks=[watch]):
        model(tokens)
        expected = dict(seen)
        seen.clear()
        monkeypatch.setattr(torch, "repeat_interleave", lambda *_, **__: pytest.fail("they were repeated"))
        CachedDecoding(model, BATCH)(tokens)
    assert seen == expected


@torch.no_grad()
def test_keys_are_rotated_once(build: Callable[..., HookedTransformer], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gqa")
    rotated: list[int] = []
    kind = type(model.blocks[0].attn)
    plain = kind.apply_rotary
    monkeypatch.setattr(
        kind, "apply_rotary", lambda self, x, *rest: rotated.append(x.shape[1]) or plain(self, x, *rest)
    )
    steps(model, CachedDecoding(model, BATCH), n=4)
    assert rotated == [FIRST, FIRST] * model.cfg.n_layers + [1, 1] * model.cfg.n_layers * 4
