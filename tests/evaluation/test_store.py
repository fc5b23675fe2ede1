"""A shard is stored whole or not at all, and made once; damage is found, named and mended; a full disk is one line."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import DPCInterpError
from dpc_interp.evaluation import store as module
from dpc_interp.evaluation.atomic import remove
from dpc_interp.evaluation.engine import Done
from dpc_interp.evaluation.store import RunStore, SharedStore, digest

FRAME = pd.DataFrame({"instance": ["a", "b"], "generated_tokens": [[1, 2], []], "answer": ["3", None]})
SHARDS = ["ab", "cd", "e"]
Contents = Callable[[Path], dict[str, bytes]]
Make = Callable[[Sequence[str]], Iterable[Done]]


def never(shards: object = None) -> pd.DataFrame:
    pytest.fail("what is stored was made again")


def letters(shards: Sequence[str]) -> Iterable[Done]:
    """The last shard first, two frames each."""
    for index in reversed(range(len(shards))):
        frame = pd.DataFrame({"letter": list(shards[index])})
        yield Done(index, {"small": frame, "large": frame["letter"].str.upper().to_frame()}, 0.5, "here")


def joined(store: RunStore, make: Make = letters) -> list[str]:
    found = store.sharded("stage", SHARDS, make, lambda frames: len(frames["small"]))
    return ["".join(found[name]["letter"]) for name in ("small", "large")]


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    first = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", lambda: FRAME)
    again = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", never)
    pd.testing.assert_frame_equal(first, again)
    assert [list(tokens) for tokens in again["generated_tokens"]] == [[1, 2], []]
    assert again["answer"].isna().tolist() == [False, True]


def test_shards_are_joined_in_their_order_and_read_by_pandas(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "run"):
        assert joined(RunStore(folder, {})) == ["abcde", "ABCDE"]
    assert joined(RunStore(tmp_path / "run", {}), never) == ["abcde", "ABCDE"]
    read = [pd.read_parquet(path)["letter"].tolist() for path in sorted((tmp_path / "run").rglob("large.parquet"))]
    assert read == [["A", "B"], ["C", "D"], ["E"]]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_stage_keeps_its_finished_shards(tmp_path: Path, stop: type[BaseException]) -> None:
    def interrupted(shards: Sequence[str]) -> Iterable[Done]:
        yield next(iter(letters(shards)))
        raise stop

    with pytest.raises(stop) as caught:
        joined(RunStore(tmp_path, {}), interrupted)
    if stop is KeyboardInterrupt:
        assert (
            str(caught.value) == f"stopped; 1 of the 3 shards of stage are kept in {tmp_path}: go on by the same call"
        )
    asked: list[str] = []

    def rest(shards: Sequence[str]) -> Iterable[Done]:
        asked.extend(shards)
        return letters(shards)

    assert joined(RunStore(tmp_path, {}), rest) == ["abcde", "ABCDE"]
    assert asked == ["ab", "cd"], "the last one was made first"


def test_stored_stages_tell_whether_they_are_whole(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {})
    assert not store.begun("stage")
    joined(store)
    store.stage("other", lambda: FRAME)
    assert store.begun("stage")
    assert [(whole, len(frames["small"])) for whole, frames in store.stored("sta")] == [(True, 2), (True, 2), (True, 1)]
    remove(tmp_path / "stage" / "00001-of-00003")
    assert [whole for whole, _ in store.stored("sta")] == [False, False]
    assert list(store.stored("none")) == []


def damage(path: Path, how: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how.startswith("flip"):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data))}.get(how, data))


@pytest.mark.parametrize("how", ["cut", "empty", "zeros", "flip 1", "flip 2", "flip 3", "gone", "a file"])
@pytest.mark.parametrize("which", ["small.parquet", "large.parquet", "digests.json"])
def test_a_damaged_shard_is_named_and_made_again(
    tmp_path: Path, how: str, which: str, request, contents: Contents
) -> None:
    joined(RunStore(tmp_path, {}))
    before = contents(tmp_path)
    shard = tmp_path / "stage" / "00001-of-00003"
    if how == "a file":
        remove(shard)
        shard.write_text("what is this?")
    elif how == "gone":
        (shard / which).unlink()
    else:
        damage(shard / which, how, random.Random(request.node.name))
    asked: list[str] = []

    def again(shards: Sequence[str]) -> Iterable[Done]:
        asked.extend(shards)
        return letters(shards)

    with pytest.warns(UserWarning, match=f"{shard} is damaged .* and is computed again") as told:
        assert joined(RunStore(tmp_path, {}), again) == ["abcde", "ABCDE"]
    assert asked == ["cd"]
    assert "\n" not in str(told[0].message)
    assert contents(tmp_path) == before


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["store.write", "atomic.os.fsync", "atomic.Path.replace"])
def test_a_full_disk_is_one_line_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch, where: str, contents: Contents
) -> None:
    store = RunStore(tmp_path, {})
    store.stage("pt", lambda: FRAME)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(f"dpc_interp.evaluation.{where}", full)
        with pytest.raises(DPCInterpError, match=r"No space left on device\); free some space and go on") as caught:
            store.stage("base", lambda: FRAME)
    assert "\n" not in str(caught.value)
    assert {name: data for name, data in contents(tmp_path).items() if "base" not in name} == before
    assert not list(tmp_path.glob(".partial*"))
    assert len(RunStore(tmp_path, {}).stage("base", lambda: FRAME)) == 2
    RunStore(tmp_path, {}).stage("pt", never)


def test_a_file_that_may_grow_no_more(tmp_path: Path) -> None:
    """The kernel refuses a write half-way, as a full disk does."""
    store = RunStore(tmp_path, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rng = random.Random(0)
    large = pd.DataFrame({"value": [rng.random() for _ in range(4000)]})
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DPCInterpError, match=r"File too large\); free some space"):
            store.stage("pt", lambda: large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["manifest.json"]
    pd.testing.assert_frame_equal(store.stage("pt", lambda: large), large)


def killed_at(folder: Path, step: str, n: int) -> None:
    """Make the stage, and die at the n-th call of `step`."""
    owner, _, name = step.rpartition(".")
    where = os if owner == "os" else Path
    function = getattr(where, name)
    calls = iter(range(n))

    def die(*args: object, **options: object) -> object:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    setattr(where, name, die)
    joined(RunStore(folder, {"gamma": 10}))
    os._exit(0)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.mkdir"])
def test_a_kill_at_every_step_of_writing_loses_nothing_else(tmp_path: Path, step: str, contents: Contents) -> None:
    joined(RunStore(tmp_path / "whole", {"gamma": 10}))
    whole = contents(tmp_path / "whole")
    kills = 0
    for n in range(60):
        folder = tmp_path / str(n)
        child = get_context("fork").Process(target=killed_at, args=(folder, step, n))
        child.start()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        found = contents(folder) if folder.exists() else {}
        parts = {name: data for name, data in found.items() if not name.startswith(".partial")}
        assert parts.items() <= whole.items()
        assert joined(RunStore(folder, {"gamma": 10})) == ["abcde", "ABCDE"]
        assert contents(folder) == whole, "and nothing half-written is left"
        if not child.exitcode:
            break
    assert child.exitcode == 0, "all steps were tried"
    assert kills >= 3


def test_abandoned_files_of_dead_processes_go(tmp_path: Path) -> None:
    import socket

    child = get_context("fork").Process(target=os._exit, args=(0,))
    child.start()
    child.join()
    host = socket.gethostname()
    names = {
        "dead": f"{host}-{child.pid}-0",
        "mine": f"{host}-{os.getpid()}-0",
        "far": "other-host-1-0",
        "old": "x-1-0",
    }
    for name in names.values():
        (tmp_path / f".partial-{name}").mkdir()
    os.utime(tmp_path / ".partial-x-1-0", (0, 0))
    RunStore(tmp_path, {})
    left = {path.name.removeprefix(".partial-") for path in tmp_path.glob(".partial-*")}
    assert left == {names["mine"], names["far"]}


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    RunStore(tmp_path, {"gamma": 10, "seed": 0, "rule": None}).stage("pt", lambda: FRAME)
    for options in (
        {"gamma": 20, "seed": 0, "rule": None},
        {"seed": 0, "rule": None},
        {"gamma": 20, "rule": None, "seed": 0, "x": 1},
    ):
        with pytest.raises(DPCInterpError, match="another gamma"):
            RunStore(tmp_path, options)
    RunStore(tmp_path, {"rule": None, "seed": 0, "gamma": 10}).stage("pt", never)


@pytest.mark.parametrize("kind", [lambda folder: RunStore(folder, {"gamma": 10}), SharedStore])
def test_other_versions_are_refused_by_name(tmp_path: Path, monkeypatch, kind: Callable[[Path], RunStore]) -> None:
    kind(tmp_path).stage("pt", lambda: FRAME)
    told = json.loads((tmp_path / "manifest.json").read_text())["versions"]
    assert set(told) == {"dpc_interp", "torch", "transformer-lens", "transformers"}
    with monkeypatch.context() as patch:
        patch.setattr(module, "versions", lambda: told | {"torch": "9.9"})
        with pytest.raises(DPCInterpError, match="holds a run with another version of torch; choose another folder"):
            kind(tmp_path)
    kind(tmp_path).stage("pt", never)


def test_without_a_folder_nothing_is_kept() -> None:
    store = RunStore(None, {"gamma": 10})
    assert store.stage("pt", lambda: FRAME) is FRAME


def test_a_shared_store_holds_each_stage_once(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "grid"):
        store = SharedStore(folder)
        first = store.stage("pt-0", lambda: FRAME)
        assert store.stage("pt-0", never) is first
    again = SharedStore(tmp_path / "grid")
    pd.testing.assert_frame_equal(again.stage("pt-0", never), first)
    assert [len(frames["rows"]) for _, frames in again.stored("pt-")] == [2]


def test_single_runs_and_ablations_do_not_mix(tmp_path: Path) -> None:
    RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", lambda: FRAME)
    with pytest.raises(DPCInterpError, match="holds a single run of evaluate"):
        SharedStore(tmp_path / "run")
    SharedStore(tmp_path / "grid").stage("pt-0", lambda: FRAME)
    with pytest.raises(DPCInterpError, match="holds the stages of an ablation"):
        RunStore(tmp_path / "grid", {"gamma": 10})


def test_two_processes_may_store_the_same_shard(tmp_path: Path) -> None:
    """As the studies of one model do, which share their sweeps."""
    one, other = SharedStore(tmp_path), SharedStore(tmp_path)

    def meanwhile(shards: Sequence[str]) -> Iterable[Done]:
        joined(other)
        return letters(shards)

    assert joined(one, meanwhile) == ["abcde", "ABCDE"]
    assert not list(tmp_path.glob(".partial*"))


def test_timings_are_those_of_all_processes_and_outlive_half_a_line(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {})
    joined(store)
    with (tmp_path / "timings.jsonl").open("a") as file:
        file.write('{"stage": "st')
    remove(tmp_path / "stage" / "00000-of-00003")
    again = RunStore(tmp_path, {})
    joined(again)
    again.sharded("other", ["xyz"], letters, lambda frames: len(frames["small"]))
    expected = pd.DataFrame({"stage": ["stage", "other"], "seconds": [1.5, 0.5], "tokens": [5, 3]})
    pd.testing.assert_frame_equal(RunStore(tmp_path, {}).timings(), expected)
    assert RunStore(None, {}).timings().columns.tolist() == ["stage", "seconds", "tokens"]


def test_a_stage_within_a_stage_tells_where_it_was_stopped(tmp_path: Path) -> None:
    store = SharedStore(tmp_path)

    def stopped(shards: Sequence[str]) -> Iterable[Done]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of the 3 shards of stage are kept"):
        store.stage("cell", lambda: store.sharded("stage", SHARDS, stopped)["small"])


def test_digest_tells_where_parts_end() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"ab") == digest(b"ab")
