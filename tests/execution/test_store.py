"""A shard is stored complete or not at all, and computed once; damage is reported and repaired; errors are one line."""

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
from dpc_interp.execution import manifest as manifest_module
from dpc_interp.execution.atomic import remove
from dpc_interp.execution.engine import Frames, JobResult
from dpc_interp.execution.store import RunStore, SharedStore

FRAME = pd.DataFrame({"instance": ["a", "b"], "generated_tokens": [[1, 2], []], "answer": ["3", None]})
SHARDS = ["ab", "cd", "e"]
Contents = Callable[[Path], dict[str, bytes]]
Compute = Callable[[Sequence[str]], Iterable[JobResult[Frames]]]


def never(shards: object = None) -> pd.DataFrame:
    pytest.fail("a stored stage was computed again")


def letters(shards: Sequence[str]) -> Iterable[JobResult[Frames]]:
    """Compute two frames of each shard, the last shard first."""
    for index in reversed(range(len(shards))):
        frame = pd.DataFrame({"letter": list(shards[index])})
        yield JobResult(index, {"small": frame, "large": frame["letter"].str.upper().to_frame()}, 0.5, "here")


def recorder(requested: list[str]) -> Compute:
    """Compute as `letters` does, and record the shards that were requested."""

    def compute(shards: Sequence[str]) -> Iterable[JobResult[Frames]]:
        requested.extend(shards)
        return letters(shards)

    return compute


def joined(store: RunStore, compute: Compute = letters) -> list[str]:
    """The letters of the stage, of both frames."""
    frames = store.sharded("stage", SHARDS, compute, lambda frames: len(frames["small"]))
    return ["".join(frames[name]["letter"]) for name in ("small", "large")]


def test_a_stage_is_computed_once(tmp_path: Path) -> None:
    first = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", lambda: FRAME)
    again = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", never)
    pd.testing.assert_frame_equal(first, again)
    assert [list(tokens) for tokens in again["generated_tokens"]] == [[1, 2], []]
    assert again["answer"].isna().tolist() == [False, True]


def test_shards_are_joined_in_order_and_can_be_read_by_pandas(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "run"):
        assert joined(RunStore(folder, {})) == ["abcde", "ABCDE"]
    assert joined(RunStore(tmp_path / "run", {}), never) == ["abcde", "ABCDE"]
    read = [pd.read_parquet(path)["letter"].tolist() for path in sorted((tmp_path / "run").rglob("large.parquet"))]
    assert read == [["A", "B"], ["C", "D"], ["E"]]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_stage_keeps_its_finished_shards(tmp_path: Path, stop: type[BaseException]) -> None:
    def interrupted(shards: Sequence[str]) -> Iterable[JobResult[Frames]]:
        yield next(iter(letters(shards)))
        raise stop

    with pytest.raises(stop) as caught:
        joined(RunStore(tmp_path, {}), interrupted)
    if stop is KeyboardInterrupt:
        stored = f"1 of the 3 shards of stage are stored in {tmp_path}"
        assert str(caught.value) == f"stopped; {stored}: make the same call again to resume"
    requested: list[str] = []
    assert joined(RunStore(tmp_path, {}), recorder(requested)) == ["abcde", "ABCDE"]
    assert requested == ["ab", "cd"], "the last one was computed first"


def test_stored_shards_come_with_the_completeness_of_their_stage(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {})
    assert not store.has_shards("stage")
    joined(store)
    store.stage("other", lambda: FRAME)
    assert store.has_shards("stage")
    shards = [(is_complete, len(frames["small"])) for is_complete, frames in store.stored("sta")]
    assert shards == [(True, 2), (True, 2), (True, 1)]
    remove(tmp_path / "stage" / "00001-of-00003")
    assert [is_complete for is_complete, _ in store.stored("sta")] == [False, False]
    assert list(store.stored("none")) == []


def damage(path: Path, kind: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind.startswith("flip"):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data))}.get(kind, data))


@pytest.mark.parametrize("kind", ["cut", "empty", "zeros", "flip 1", "flip 2", "flip 3", "missing", "a file"])
@pytest.mark.parametrize("name", ["small.parquet", "large.parquet", "digests.json"])
def test_a_damaged_shard_is_reported_and_computed_again(
    tmp_path: Path, kind: str, name: str, request: pytest.FixtureRequest, contents: Contents
) -> None:
    joined(RunStore(tmp_path, {}))
    before = contents(tmp_path)
    shard = tmp_path / "stage" / "00001-of-00003"
    if kind == "a file":
        remove(shard)
        shard.write_text("not a folder")
    elif kind == "missing":
        (shard / name).unlink()
    else:
        damage(shard / name, kind, random.Random(request.node.name))
    requested: list[str] = []
    with pytest.warns(UserWarning, match=f"{shard} is damaged .* and is computed again") as warned:
        assert joined(RunStore(tmp_path, {}), recorder(requested)) == ["abcde", "ABCDE"]
    assert requested == ["cd"]
    assert "\n" not in str(warned[0].message)
    assert contents(tmp_path) == before


def fail_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("function", ["store.write", "atomic.os.fsync", "atomic.Path.replace"])
def test_a_full_disk_is_one_line_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, contents: Contents
) -> None:
    store = RunStore(tmp_path, {})
    store.stage("pt", lambda: FRAME)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(f"dpc_interp.execution.{function}", fail_full)
        with pytest.raises(DPCInterpError, match=r"No space left on device\); free some space, then make") as caught:
            store.stage("base", lambda: FRAME)
    assert "\n" not in str(caught.value)
    assert {name: data for name, data in contents(tmp_path).items() if "base" not in name} == before
    assert not list(tmp_path.glob(".partial*"))
    assert len(RunStore(tmp_path, {}).stage("base", lambda: FRAME)) == 2
    RunStore(tmp_path, {}).stage("pt", never)


def test_a_write_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    """The kernel stops the write at a size limit, as it does on a full disk."""
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
    """Compute the stage, and die at the n-th call of `step`."""
    module, _, name = step.rpartition(".")
    owner = os if module == "os" else Path
    function = getattr(owner, name)
    calls = iter(range(n))

    def die(*args: object, **options: object) -> object:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    setattr(owner, name, die)
    joined(RunStore(folder, {"gamma": 10}))
    os._exit(0)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.mkdir"])
def test_a_kill_at_any_step_of_writing_loses_only_that_shard(tmp_path: Path, step: str, contents: Contents) -> None:
    joined(RunStore(tmp_path / "undisturbed", {"gamma": 10}))
    expected = contents(tmp_path / "undisturbed")
    kills = 0
    for n in range(60):
        folder = tmp_path / str(n)
        child = get_context("fork").Process(target=killed_at, args=(folder, step, n))
        child.start()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        files = contents(folder) if folder.exists() else {}
        visible = {name: data for name, data in files.items() if not name.startswith(".partial")}
        assert visible.items() <= expected.items()
        assert joined(RunStore(folder, {"gamma": 10})) == ["abcde", "ABCDE"]
        assert contents(folder) == expected, "and no partial file is left"
        if not child.exitcode:
            break
    assert child.exitcode == 0, "all steps were tried"
    assert kills >= 3


def test_abandoned_partial_files_are_removed_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / ".partial-other-host-1-0").mkdir()
    os.utime(tmp_path / ".partial-other-host-1-0", (0, 0))
    RunStore(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_stages_without_a_manifest_are_an_error(tmp_path: Path) -> None:
    RunStore(tmp_path, {}).stage("pt", lambda: FRAME)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DPCInterpError, match=r"holds stages without a manifest\.json"):
        RunStore(tmp_path, {})


def test_other_options_are_an_error_that_names_them(tmp_path: Path) -> None:
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
def test_other_versions_are_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], RunStore]
) -> None:
    kind(tmp_path).stage("pt", lambda: FRAME)
    stored = json.loads((tmp_path / "manifest.json").read_text())["versions"]
    assert set(stored) == {"dpc_interp", "torch", "transformer-lens", "transformers"}
    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "versions", lambda: stored | {"torch": "9.9"})
        with pytest.raises(DPCInterpError, match="holds a run with another version of torch; choose another folder"):
            kind(tmp_path)
    kind(tmp_path).stage("pt", never)


def test_without_a_folder_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore(None, {"gamma": 10})
    assert store.stage("pt", lambda: FRAME) is FRAME
    store.write_manifest("pt", {"gamma": 10})
    assert not store.has_shards("pt")
    assert list(store.stored("")) == list(tmp_path.iterdir()) == []


def test_the_manifest_of_a_stage_is_written_once(tmp_path: Path) -> None:
    store = SharedStore(tmp_path)
    store.stage("cell-0", lambda: FRAME)
    store.write_manifest("cell-0", {"gamma": 10, "deep": None})
    store.write_manifest("cell-0", {"gamma": 20})
    assert (tmp_path / "cell-0" / "manifest.json").read_text() == '{\n "deep": null,\n "gamma": 10\n}\n'
    assert [is_complete for is_complete, _ in store.stored("cell-")] == [True]


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
    """Two studies of the same model share their sweeps."""
    one, other = SharedStore(tmp_path), SharedStore(tmp_path)

    def compute_after_the_other(shards: Sequence[str]) -> Iterable[JobResult[Frames]]:
        joined(other)
        return letters(shards)

    assert joined(one, compute_after_the_other) == ["abcde", "ABCDE"]
    assert not list(tmp_path.glob(".partial*"))


def test_timings_cover_all_processes_and_survive_half_a_line(tmp_path: Path) -> None:
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


def test_timings_without_a_folder_are_those_of_this_process() -> None:
    store = RunStore(None, {})
    joined(store)
    assert store.timings().to_numpy().tolist() == [["stage", 1.5, 5]]


def test_an_interrupt_names_the_innermost_stage(tmp_path: Path) -> None:
    store = SharedStore(tmp_path)

    def stopped(shards: Sequence[str]) -> Iterable[JobResult[Frames]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of the 3 shards of stage are stored"):
        store.stage("cell", lambda: store.sharded("stage", SHARDS, stopped)["small"])
