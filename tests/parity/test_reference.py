"""The Hugging Face model that a hooked model is compared with is found, or its absence explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpc_interp import load_model
from dpc_interp.parity.reference import find_reference, is_wrapped, unwrap

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13]])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_unwrap_is_the_model_before_the_bridge(hugging_face: Callable, bridge: Callable, family: str) -> None:
    original = hugging_face(family)
    original.set_attn_implementation("eager")  # the reference is eager; fused attention rounds otherwise
    expected = original(TOKENS).logits
    assert not is_wrapped(original)
    model = bridge(original)
    assert is_wrapped(model.original_model)
    plain = unwrap(model.original_model)
    assert not is_wrapped(plain)
    assert torch.equal(plain(TOKENS).logits, expected)
    assert plain.config._attn_implementation == "eager"


def test_unwrap_shares_the_weights(hugging_face: Callable, bridge: Callable) -> None:
    model = bridge(hugging_face("llama"))
    plain = unwrap(model.original_model)
    storages = {weight.data_ptr() for weight in model.original_model.parameters()}
    assert {weight.data_ptr() for weight in plain.parameters()} <= storages


def test_the_reference_of_a_bridge_is_its_own_model(hugging_face: Callable, bridge: Callable) -> None:
    expected = hugging_face("gpt2")
    expected.set_attn_implementation("eager")
    reference = find_reference(bridge(hugging_face("gpt2")))
    assert reference.source == "its own weights in a plain Hugging Face model"
    assert torch.equal(reference.hf_model(TOKENS).logits, expected(TOKENS).logits)


@pytest.mark.usefixtures("needs_hooked")
def test_the_reference_is_loaded_from_the_folder_of_the_model(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("llama", tmp_path / "mine")
    reference = find_reference(load_model(str(folder), device="cpu"))
    assert reference.source == str(folder)
    assert not reference.hf_model.training
    assert reference.hf_model.config._attn_implementation == "eager"


@pytest.mark.usefixtures("needs_hooked")
def test_a_model_of_another_shape_is_no_reference(build: Callable) -> None:
    """A random model with the reasoner's tokenizer must not be compared with the reasoner."""
    hf_model, source = find_reference(build("gqa"))
    assert hf_model is None
    assert source == "its Hugging Face model was not found on this machine; give hf_model="
