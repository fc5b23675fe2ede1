"""Atomic writes: complete or absent, no partial file left, and errors of the file system as one line."""

from __future__ import annotations

import errno
import os
import socket
from multiprocessing import get_context
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.execution.atomic import (
    append_line,
    atomic_path,
    os_errors_as_dpc_errors,
    remove,
    remove_abandoned,
    write,
    write_atomically,
)


def test_a_file_appears_under_its_name_when_the_body_ends(tmp_path: Path) -> None:
    path = tmp_path / "stage" / "file"
    with atomic_path(path, tmp_path) as partial:
        write(partial, b"complete")
        assert not path.exists()
    assert path.read_bytes() == b"complete"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_failed_body_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old", tmp_path)

    def fail() -> None:
        with atomic_path(path, tmp_path) as partial:
            write(partial, b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_another_process_stored_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with atomic_path(path, tmp_path) as partial:
        partial.mkdir()
        write(partial / "mine", b"")
        path.mkdir()
        write(path / "theirs", b"")
    assert [file.name for file in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "fix"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"), (errno.EACCES, "choose another folder")],
)
def test_errors_of_the_file_system_say_how_to_go_on(tmp_path: Path, code: int, fix: str) -> None:
    with (
        pytest.raises(DPCInterpError, match=f"{os.strerror(code)}.*{fix}.*same call again") as caught,
        os_errors_as_dpc_errors(tmp_path),
    ):
        raise OSError(code, os.strerror(code))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_are_appended_and_half_a_line_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    append_line(file, "one")
    append_line(file, "two")
    with file.open("a") as half:
        half.write("thr")
    append_line(file, "four")
    assert file.read_text() == "one\ntwo\nthr\nfour\n"


def append_lines(file: Path, letter: str) -> None:
    for _ in range(200):
        append_line(file, letter * 50)


def test_lines_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    processes = [get_context("fork").Process(target=append_lines, args=(tmp_path / "lines", x)) for x in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (tmp_path / "lines").read_text().splitlines()
    assert sorted(line for line in lines if line) == ["a" * 50] * 200 + ["b" * 50] * 200


def test_remove_takes_files_folders_and_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "file").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file", "missing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_partial_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    child = get_context("fork").Process(target=os._exit, args=(0,))
    child.start()
    child.join()
    host = socket.gethostname()
    for name in (f"{host}-{child.pid}-0", f"{host}-{os.getpid()}-0", "other-host-1-0", "old-host-1-0"):
        (tmp_path / f".partial-{name}").mkdir()
    os.utime(tmp_path / ".partial-old-host-1-0", (0, 0))
    (tmp_path / "stage").mkdir()
    remove_abandoned(tmp_path)
    left = {path.name.removeprefix(".partial-") for path in tmp_path.iterdir()}
    assert left == {f"{host}-{os.getpid()}-0", "other-host-1-0", "stage"}
