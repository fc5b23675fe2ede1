"""An adapter is found in a folder, a subfolder of it, or on the Hub; a place without one raises one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from dpc_interp import DPCInterpError, SoftPrompt, load_prompt
from dpc_interp.errors import UnknownNameError
from dpc_interp.prompts.adapter_source import HubAdapter, parse_hub_name

COMMITS = {"main": "0" * 39 + "1", "v2": "0" * 39 + "2", "refs/pr/1": "0" * 39 + "3"}
"""Revision -> commit in the Hub's cache of the tests."""


def message_of(name: str | Path, match: str, **options: object) -> None:
    """Check the error message of `load_prompt`: one line."""
    with pytest.raises(DPCInterpError, match=match) as caught:
        load_prompt(name, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def vectors(prompt: SoftPrompt) -> dict[str, torch.Tensor]:
    """The vectors of each place, all different."""
    names = ["main", "main/sub", "main/a/b", "v2", "v2/sub", "refs/pr/1"]
    return {name: prompt.vectors + i for i, name in enumerate(names)}


def write(folder: Path, vectors: torch.Tensor) -> Path:
    """An adapter without a recorded name."""
    SoftPrompt(vectors).save_pretrained(folder)
    (folder / "recipe.json").unlink()
    return folder


@pytest.fixture
def hub(vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with three revisions of `someone/story-prompt`; returns the folder of its snapshots."""
    entry = tmp_path / "hub" / "models--someone--story-prompt"
    for revision, commit in COMMITS.items():
        ref = entry / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
        for place, values in vectors.items():
            if place == revision or place.startswith(f"{revision}/"):
                write(entry / "snapshots" / commit / place.removeprefix(revision).strip("/"), values)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return entry / "snapshots"


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("someone/story-prompt", {}, "main"),
        ("someone/story-prompt/sub", {}, "main/sub"),
        ("someone/story-prompt", {"subfolder": "sub"}, "main/sub"),
        ("someone/story-prompt/a/b", {}, "main/a/b"),
        ("someone/story-prompt/a", {"subfolder": "a"}, None),
        ("someone/story-prompt@v2", {}, "v2"),
        ("someone/story-prompt", {"revision": "v2"}, "v2"),
        ("someone/story-prompt", {"revision": COMMITS["v2"]}, "v2"),
        ("someone/story-prompt/sub@v2", {}, "v2/sub"),
        ("someone/story-prompt/sub", {"revision": "v2"}, "v2/sub"),
        ("someone/story-prompt@v2", {"subfolder": "sub", "revision": "v2"}, "v2/sub"),
        ("someone/story-prompt@refs/pr/1", {}, "refs/pr/1"),
    ],
)
def test_names_of_the_hub(
    hub: Path, vectors: dict[str, torch.Tensor], name: str, options: dict[str, str], place: str | None
) -> None:
    if place is None:
        message_of(name, "someone/story-prompt/a lacks adapter_config.json, which is in its subfolder 'b'", **options)
        return
    loaded = load_prompt(name, **options)
    assert torch.equal(loaded.vectors, vectors[place])
    inside = options.get("subfolder")
    assert loaded.name == (f"{name}/{inside}" if inside else name)


def test_a_path_is_a_hub_name_too(hub: Path, vectors: dict[str, torch.Tensor]) -> None:
    assert torch.equal(load_prompt(Path("someone/story-prompt/sub")).vectors, vectors["main/sub"])


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("someone/story-prompt@v3", {}, "'someone/story-prompt@v3' is not a local folder and cannot be fetched"),
        ("someone/story-prompt", {"revision": "v3"}, "'someone/story-prompt@v3' is not a local folder"),
        ("someone/story-prompt/other", {}, "someone/story-prompt/other lacks adapter_config.json; give a PEFT"),
        ("someone/story-prompt@v2", {"revision": "main"}, "already has the revision 'v2'; leave out revision="),
        ("someone/story-prompt/sub", {"subfolder": "a"}, "already has the subfolder 'sub'; leave out subfolder="),
        (
            "someone/story-prompt",
            {"subfolder": "../v2"},
            "leads out of the folder of the adapter; give",
        ),
        (
            "someone/story-prompt",
            {"subfolder": "/etc"},
            "leads out of the folder of the adapter; give",
        ),
    ],
)
def test_a_place_that_does_not_exist_raises_one_line(hub: Path, name: str, options: dict[str, str], match: str) -> None:
    message_of(name, match, **options)


def test_the_hub_is_sent_what_was_given(vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch) -> None:
    """With a network: the configuration is fetched first, then the weights, from the revision and the subfolder."""
    write(tmp_path / "sub", vectors["main"])
    calls = []

    def fetch(name: str, **options: object) -> str:
        calls.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("dpc_interp.prompts.adapter_source.hub_is_reachable", lambda: True)
    monkeypatch.setattr("dpc_interp.prompts.adapter_source.snapshot_download", fetch)
    load_prompt("someone/story-prompt/sub@v2")
    assert [name for name, _ in calls] == ["someone/story-prompt"] * 2
    assert {(options["revision"], options["local_files_only"]) for _, options in calls} == {("v2", False)}
    first, second = (options["allow_patterns"] for _, options in calls)
    assert first == ["sub/adapter_config.json", "sub/recipe.json"]
    assert second == [*first, "sub/adapter_model.safetensors", "sub/adapter_model.bin"]


def test_the_subfolders_of_a_hub_adapter_are_named(hub: Path) -> None:
    (hub / COMMITS["main"] / "adapter_config.json").unlink()
    message_of("someone/story-prompt", "lacks adapter_config.json, which is in its subfolder 'a/b', 'sub'; give subf")


def test_the_type_of_a_hub_adapter_is_checked_before_its_weights_are_fetched(hub: Path) -> None:
    file = hub / COMMITS["main"] / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": "LORA"}))
    (hub / COMMITS["main"] / "adapter_model.safetensors").unlink()
    message_of("someone/story-prompt", "is a LORA adapter")


@pytest.mark.parametrize("name", ["someone/other-prompt", "runs/mistyped", "two--dashes/x"])
def test_a_hub_name_raises_offline(hub: Path, name: str) -> None:
    message_of(name, "is not a local folder and cannot be fetched .* download the adapter")


def test_a_subfolder_of_a_local_folder(vectors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-500", vectors["main"])
    loaded = load_prompt(tmp_path, subfolder="checkpoint-500")
    assert torch.equal(loaded.vectors, vectors["main"])
    assert loaded.name == "checkpoint-500"
    assert torch.equal(load_prompt(f"{tmp_path}/checkpoint-500/").vectors, vectors["main"])


def test_a_folder_whose_subfolder_holds_an_adapter_names_it(vectors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-500", vectors["main"])
    message_of(tmp_path, "lacks adapter_config.json, which is in its subfolder 'checkpoint-500'; give subfolder=$")
    for step in (1000, 1500, 2000):
        write(tmp_path / f"checkpoint-{step}", vectors["main"])
    message_of(tmp_path, "subfolder 'checkpoint-500', 'checkpoint-1000', 'checkpoint-1500' and 1 more; give subfolder=")
    message_of(tmp_path, "none lacks adapter_config.json; give a PEFT adapter folder", subfolder="none")
    write(tmp_path / "run" / "seed0", vectors["main"])  # `seed0` is special only in the package's own folder
    message_of(tmp_path / "run", "which is in its subfolder 'seed0'")


def test_a_home_folder_and_a_path_are_read(vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine", vectors["main"])
    for name in ("~/mine", Path("~/mine"), Path("~") / "mine" / "."):
        loaded = load_prompt(name)
        assert torch.equal(loaded.vectors, vectors["main"])
        assert loaded.name == "mine"
    message_of("~/other", "unknown prompt '~/other'")


@pytest.mark.parametrize("name", ["", "./", "nowhere", "a b/c", "owner/name@", "owner//name", "/nowhere/at/all"])
def test_what_is_no_name_raises_one_line(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    message_of(name, "unknown prompt|lacks adapter_config")


def test_a_bundled_prompt_in_a_subfolder_and_with_a_revision(tmp_path: Path) -> None:
    assert torch.equal(
        load_prompt("reasoner/story", subfolder="seed1").vectors, load_prompt("reasoner/story/seed1").vectors
    )
    message_of("reasoner/story", "is a local folder, which has no revisions; leave out revision=", revision="main")
    with pytest.raises(UnknownNameError, match=r"unknown prompt 'reasoner/story/seed77'; .*reasoner/story/seed7"):
        load_prompt("reasoner/story/seed77")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("name", [None, 7, ["reasoner/story"]])
def test_what_is_neither_a_name_nor_a_path_raises(name: object) -> None:
    message_of(name, "load_prompt takes a name or a path, not a ")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/name", ("owner/name", "", None)),
        ("owner/na.me-2@v1.0", ("owner/na.me-2", "", "v1.0")),
        ("owner/name/a/b@main", ("owner/name", "a/b", "main")),
        ("owner/name@refs/pr/3", ("owner/name", "", "refs/pr/3")),
    ],
)
def test_parts_of_a_hub_name(name: str, parts: tuple[str, str, str | None]) -> None:
    assert parse_hub_name(name) == HubAdapter(*parts)


@pytest.mark.parametrize("name", ["name", "owner/", "/owner/name", "owner/name@", "owner/name/../x", "a b/c", "~/name"])
def test_what_is_no_hub_name(name: str) -> None:
    assert parse_hub_name(name) is None


def test_a_copied_folder_is_read(vectors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Nothing but the files of the folder matters."""
    copied = shutil.copytree(write(tmp_path / "one", vectors["v2"]), tmp_path / "two")
    assert torch.equal(load_prompt(copied).vectors, vectors["v2"])
