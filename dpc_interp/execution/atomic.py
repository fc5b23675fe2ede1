"""Atomic writes: a file or folder is written under a temporary name in the same file system, synced, then renamed.

A reader, or a run that is resumed after a kill or a power cut, sees the complete result or none.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from dpc_interp.errors import DPCInterpError

MAX_AGE = 24 * 60 * 60
"""Seconds after which the partial files of another machine count as abandoned."""
_counter = count()


@contextmanager
def os_errors_as_dpc_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of the file system, such as a full disk, into messages of one line.

    Args:
        folder: named in the message.

    Raises:
        DPCInterpError: the body raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some space" if is_full else "fix it or choose another folder"
        raise DPCInterpError(
            f"{folder} cannot be used ({reason}); {fix}, then make the same call again: finished shards stay stored"
        ) from error


@contextmanager
def atomic_path(path: Path, folder: Path) -> Iterator[Path]:
    """Yield a temporary path; what the body writes there is renamed to `path`, or removed when the body fails.

    Where another process has stored the folder `path` in the meantime, its version stays.

    Args:
        path: final path of a file or folder. Its parent is created; the parent's parent must exist.
        folder: where the temporary path lies, on the same file system; `remove_abandoned` cleans it.
    """
    path.parent.mkdir(exist_ok=True)
    # the name says which process writes it, so that `remove_abandoned` can tell a killed writer from a live one
    partial = folder / f".partial-{socket.gethostname()}-{os.getpid()}-{next(_counter)}"
    try:
        yield partial
        try:
            partial.replace(path)
        except OSError:
            if not path.is_dir():  # a folder is there already when another process has stored the same shard
                raise
    finally:
        remove(partial)


def write(path: Path, data: bytes) -> None:
    """Write bytes to a file and sync it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # without it, a power cut after the rename could leave the name without the bytes


def write_atomically(path: Path, data: bytes, folder: Path) -> None:
    """Write bytes to a file, which then exists complete or not at all; for the arguments see `atomic_path`."""
    with atomic_path(path, folder) as partial:
        write(partial, data)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that several processes may append to; half a line, left by a power cut, is ended first.

    Args:
        path: of the file, which is created if it does not exist.
        line: without its line end.
    """
    data = (line + "\n").encode()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                data = b"\n" + data
        file.write(data)  # one write in append mode, so the lines of two processes do not mix


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents; a missing path is no error."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the partial files in `folder` whose writer is dead.

    A writer on this machine is looked up by its process id. The writers of another machine that shares the folder
    cannot be, so their files are removed after `MAX_AGE` seconds.
    """
    for partial in folder.glob(".partial-*"):
        host, pid = partial.name.removeprefix(".partial-").rsplit("-", 2)[:2]  # a host name may contain hyphens
        is_dead = host == socket.gethostname() and not _is_alive(int(pid))
        with suppress(FileNotFoundError):  # its writer may have finished it meanwhile
            if is_dead or time.time() - partial.stat().st_mtime > MAX_AGE:
                remove(partial)


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)  # signal 0 only checks that the process exists
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to another user
        return True
    return True
