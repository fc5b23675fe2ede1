"""Where jobs get their model, and names of folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpc_interp import load_model
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.source import ModelSource, folder_name


def test_a_loaded_model_is_used_as_it_is(model: HookedModel) -> None:
    source = ModelSource(model)
    assert source.is_loaded
    assert source.load() is model
    assert source.name == model.cfg.model_name


def test_a_named_model_is_loaded_with_its_keywords() -> None:
    source = ModelSource("reasoner", {"dtype": "bfloat16"})
    assert (source.is_loaded, source.name) == (False, "reasoner")
    assert str(source.load().cfg.dtype) == "torch.bfloat16"
    assert load_model("reasoner").cfg.dtype != source.load().cfg.dtype


def test_a_path_is_named_by_its_last_part(tmp_path: Path) -> None:
    assert ModelSource(tmp_path).name == ModelSource(str(tmp_path)).name == tmp_path.name
    assert ModelSource("owner/name").name == "owner/name"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("story", "story/seed0"), "story-story-seed0"),
        (("a b", "../c"), "a-b-..-c"),
        (("..",), "unnamed"),
        (("数",), "数"),
    ],
)
def test_names_of_folders_hold_no_separator(parts: tuple[str, ...], name: str) -> None:
    assert folder_name(*parts) == name
