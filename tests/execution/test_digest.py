"""Digests depend on every byte, on where parts end, on weights and on their precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch

from dpc_interp.execution.digest import digest, model_digest
from dpc_interp.models.hooked import HookedModel


def test_a_digest_is_blake2b_of_lengths_and_parts() -> None:
    """Stored manifests and stage names depend on it."""
    expected = hashlib.blake2b(bytes(7) + b"\x02ab" + bytes(7) + b"\x01c", digest_size=8).hexdigest()
    assert digest(b"ab", b"c") == expected
    assert len(expected) == 16


def test_a_digest_depends_on_where_parts_end() -> None:
    assert len({digest(b"ab", b"c"), digest(b"a", b"bc"), digest(b"abc"), digest(b"abc", b""), digest()}) == 5


def test_a_model_digest_depends_on_each_weight(build: Callable[..., HookedModel]) -> None:
    model, same = build("plain"), build("plain")
    before = model_digest(model)
    assert model_digest(same) == before
    weight = list(same.parameters())[-1]
    with torch.no_grad():
        weight.view(-1)[-1] += 1e-3
    assert model_digest(same) != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_digest_depends_on_the_precision(build: Callable[..., HookedModel], dtype: torch.dtype) -> None:
    """Also where the numbers are the same: those of a half-precision model are exact in float32."""
    model = build("plain", dtype=dtype)
    half = model_digest(model)
    model.float()
    assert model_digest(model) != half
