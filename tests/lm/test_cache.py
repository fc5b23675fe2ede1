"""Decoding's key and value cache against TransformerLens's own: the same numbers at every step, bit for bit."""

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
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7, [0, 1, 1, 1, 1, 1, 1]])


def theirs(model: HookedTransformer) -> Callable[..., Tensor]:
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, BATCH)

    def read(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(tokens) if mask is None else mask
        return model(tokens, attention_mask=mask, past_kv_cache=cache, prepend_bos=False)

    def keep(rows: Tensor) -> None:
        for entry in cache.entries:
            entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]
        cache.previous_attention_mask = cache.previous_attention_mask[rows]

    read.keep = keep  # type: ignore[attr-defined]
    return read


def steps(model: HookedTransformer, read: CachedDecoding | Callable[..., Tensor], n: int = ROOM + 6) -> list[Tensor]:
    """Logits of a padded first pass and of `n` steps, past the room of the first buffer, a row leaving on the way."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, model.cfg.d_vocab, (BATCH, FIRST + n), generator=generator)
    found = [read(tokens[:, :FIRST], MASK)]
    kept = torch.tensor([True, False, True])
    for column in range(FIRST, FIRST + n):
        if column == FIRST + 3:
            read.keep(kept)  # type: ignore[union-attr]
            tokens = tokens[kept]
        found.append(read(tokens[:, column : column + 1]))
    return found


@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
@torch.no_grad()
def test_the_same_bit_for_bit(build: Callable[..., HookedTransformer], kind: str, unchanged) -> None:
    model = build(kind)
    with unchanged(model):
        pairs = list(zip(steps(model, CachedDecoding(model, BATCH)), steps(model, theirs(model)), strict=True))
        assert len(pairs) == ROOM + 7
        assert all(torch.equal(ours, expected) for ours, expected in pairs)


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
    assert all(torch.equal(ours, expected) for ours, expected in zip(*results, strict=True))
    plain = steps(model, CachedDecoding(model, BATCH), n=5)
    assert not torch.equal(plain[-1], results[0][-1])


def test_nothing_stays_in_the_model(build: Callable[..., HookedTransformer]) -> None:
    model = build("gqa")

    def fail(value: Tensor, hook: object) -> Tensor:
        raise KeyboardInterrupt

    read = CachedDecoding(model, BATCH)
    with model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", fail)]), pytest.raises(KeyboardInterrupt):
        read(torch.ones(BATCH, FIRST, dtype=torch.long), MASK)
    assert not any("apply_rotary" in vars(block.attn) for block in model.blocks)


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
