"""Digests depend on every byte, on where parts end, on weights with shape and precision, and cost no memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
import xxhash
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dpc_interp.execution import digest as digest_module
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


def small(*weights: torch.Tensor) -> nn.Module:
    """A module with these weights."""
    module = nn.Module()
    module.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)
    return module


@pytest.fixture
def hashes(untyped: None) -> Callable[..., str]:
    """The digest of a model with these weights."""

    def compute(*weights: torch.Tensor) -> str:
        return model_digest(small(*weights))

    return compute


@pytest.fixture(params=[16, 64, 2**26])
def max_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(digest_module, "MAX_BYTES", request.param)
    monkeypatch.setattr(digest_module, "N_TRANSPOSED_ROWS", 2 if request.param < 2**26 else 128)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_model_digest_is_that_of_headers_and_bytes(hashes: Callable, max_bytes: int, dtype: torch.dtype) -> None:
    """However many bytes are read at a time, and in whatever order the weights are stored."""
    weights = [torch.randn(6, 5).to(dtype), torch.randn(3, 4, 5).to(dtype), torch.randn(7).to(dtype)]
    weights += [torch.randn(()).to(dtype), torch.zeros(0, 3, dtype=dtype)]
    hasher = xxhash.xxh3_128()
    for weight in weights:
        hasher.update(f"{dtype} {list(weight.shape)};".encode())
        as_int = weight.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])
        hasher.update(as_int.numpy().tobytes())
    expected = digest(hasher.digest())
    assert hashes(*weights) == expected
    for axes in ((0, -1), (0, 1), (-2, -1)):
        transposed = [w.transpose(*axes).contiguous().transpose(*axes) if w.ndim > 1 else w for w in weights]
        assert not transposed[0].is_contiguous()
        assert hashes(*transposed) == expected
    assert hashes(*(w.repeat_interleave(2, -1)[..., ::2] if w.ndim else w for w in weights)) == expected, "every second"


def test_a_model_digest_depends_on_shapes(hashes: Callable) -> None:
    numbers = torch.arange(12.0)
    shapes = [(numbers,), (numbers.view(3, 4),), (numbers.view(4, 3),), (numbers[:6], numbers[6:])]
    assert len({hashes(*weights) for weights in shapes}) == 4


def test_a_shared_weight_is_read_once(untyped: None) -> None:
    model = small(torch.randn(3, 4))
    before = model_digest(model)
    model.tied = nn.Linear(4, 3, bias=False)
    model.tied.weight = model.weights[0]
    assert model_digest(model) == before


class Allocations(TorchDispatchMode):
    """The bytes of the largest tensor that is made within."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        stored = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in stored:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return result


def test_no_more_is_copied_than_a_part_of_one_weight(hashes: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights that are stored transposed as well, which have to be copied."""
    monkeypatch.setattr(digest_module, "MAX_BYTES", 2**12)
    monkeypatch.setattr(digest_module, "N_TRANSPOSED_ROWS", 8)
    weights = torch.randn(512, 128), torch.randn(128, 512).T, torch.randn(8, 64, 64).transpose(1, 2).bfloat16()
    with Allocations() as made:
        hashes(*weights)
    assert 0 < made.largest <= 2**12
    with Allocations() as made:
        hashes(weights[0])
    assert made.largest == 0, "a weight on the CPU in the order of its elements is not copied"


def test_a_model_without_values_has_a_digest_of_its_shapes(hashes: Callable) -> None:
    shapes = [(3, 4), (4, 3)]
    assert len({hashes(torch.empty(shape, device="meta")) for shape in shapes}) == 2
