"""Files that are there whole or not at all: written beside under a name of the writer's own, synced, renamed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from dpc_interp.errors import DPCInterpError

DAY = 24 * 60 * 60
_numbers = count()


@contextmanager
def told_in_one_line(folder: Path) -> Iterator[None]:
    """What the file system refuses, a full disk among it, as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "free some space" if full else "choose another folder, or mend it"
        raise DPCInterpError(
            f"{folder} cannot be used ({reason}); {mend} and go on by the same call: what is stored is kept"
        ) from error


@contextmanager
def beside(path: Path, folder: Path) -> Iterator[Path]:
    """A partial file or folder in `folder` that becomes `path` when the body ends, and is removed when it fails."""
    path.parent.mkdir(exist_ok=True)
    # named by who writes it, so that what a kill leaves behind is found
    partial = folder / f".partial-{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"
    try:
        yield partial
        try:
            partial.replace(path)
        except OSError:
            if not path.is_dir():  # else another process has stored the same shard
                raise
    finally:
        remove(partial)


def write(path: Path, data: bytes) -> None:
    """Write and sync."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the name without the bytes


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; what is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes of this machine left half-written, and what has been left for a day."""
    for partial in folder.glob(".partial-*"):
        host, pid = partial.name.removeprefix(".partial-").rsplit("-", 2)[:2]
        dead = host == socket.gethostname() and not _alive(int(pid))
        if dead or time.time() - partial.stat().st_mtime > DAY:
            remove(partial)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
