"""The parts that differ between TransformerLens 3.9 and 4."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from dpc_interp import DPCInterpError, load_model
from dpc_interp.models import lens


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("gpt2-small", "gpt2"),
        ("pythia-14m", "EleutherAI/pythia-14m"),
        ("EleutherAI/pythia-14m", "EleutherAI/pythia-14m"),
        ("reasoner", None),
        ("someone/some-model", None),
    ],
)
def test_official_names(name: str, official: str | None) -> None:
    assert lens.official_name(name) == official


@pytest.mark.usefixtures("needs_hooked")
def test_hooked_is_available() -> None:
    from transformer_lens import HookedTransformer

    assert lens.HAS_HOOKED
    assert lens.HookedTransformer is HookedTransformer
    lens.need_hooked()


def test_hooked_raises_without_hooked_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens, "HAS_HOOKED", False)
    with pytest.raises(DPCInterpError, match=r'backend="hooked" needs TransformerLens 3, .*; use backend="bridge"'):
        load_model("reasoner", backend="hooked")


def test_placeholder_on_transformer_lens_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module, executed as on TransformerLens 4: without HookedTransformer, official names in another module."""
    names = ModuleType("transformer_lens.supported_models")
    names.get_official_model_name = lambda name: f"official/{name}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformer_lens.supported_models", names)
    spec = importlib.util.spec_from_file_location("lens_on_4", lens.__file__)
    assert spec is not None
    assert spec.loader is not None
    lens_on_4 = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec.loader.exec_module(lens_on_4)
    assert not lens_on_4.HAS_HOOKED
    assert lens_on_4.official_name("a") == "official/a"
    assert not isinstance(load_model("reasoner", device="cpu"), lens_on_4.HookedTransformer)
    with pytest.raises(DPCInterpError, match="needs TransformerLens 3"):
        lens_on_4.need_hooked()
