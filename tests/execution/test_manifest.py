"""Manifests: equal settings have equal bytes, other settings are named."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.execution.manifest import check_manifest, manifest_bytes, read_manifest, run_manifest, versions

OPTIONS = {"gamma": 10, "deep": (4, 5), "rule": None}


def test_versions_are_those_installed() -> None:
    assert versions()["torch"] == metadata.version("torch")
    assert set(versions()) == {"dpc_interp", "torch", "transformer-lens", "transformers"}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = run_manifest("a run", OPTIONS)
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(manifest))
    stored = read_manifest(tmp_path / "manifest.json")
    assert stored == manifest == {"holds": "a run", "versions": versions(), "gamma": 10, "deep": [4, 5], "rule": None}
    check_manifest(tmp_path, stored, run_manifest("a run", OPTIONS))


def test_equal_settings_have_equal_bytes() -> None:
    reordered = dict(reversed(OPTIONS.items()))
    assert manifest_bytes(run_manifest("a run", OPTIONS)) == manifest_bytes(run_manifest("a run", reordered))
    assert manifest_bytes({"b": 1, "a": None}) == b'{\n "a": null,\n "b": 1\n}\n'


@pytest.mark.parametrize("text", ["", '{"gamma": 1', "[1, 2]"])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DPCInterpError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 20}, "holds a run with another gamma; choose"),
        ({"gamma": 20, "rule": 1}, "holds a run with another gamma, rule; choose"),
        ({"new": 1}, "another new; choose"),
        (dict.fromkeys("abcdef", 1), "another a, b, c, d and 2 more; choose"),
        ({"holds": "a grid"}, "holds a run; choose"),
        ({"versions": {"torch": "9.9"}, "gamma": 20}, "another version of torch; choose"),
    ],
)
def test_other_settings_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    stored = {"holds": "a run", "versions": {"torch": "2"}, **OPTIONS}
    with pytest.raises(DPCInterpError, match=message):
        check_manifest(tmp_path, stored, stored | changes)


def test_a_removed_option_is_named(tmp_path: Path) -> None:
    stored = run_manifest("a run", OPTIONS)
    with pytest.raises(DPCInterpError, match="another gamma; choose"):
        check_manifest(tmp_path, stored, {name: value for name, value in stored.items() if name != "gamma"})


def test_a_manifest_without_a_kind_is_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(DPCInterpError, match="holds a run of another version"):
        check_manifest(tmp_path, json.loads('{"gamma": 10}'), run_manifest("a run", {"gamma": 10}))
