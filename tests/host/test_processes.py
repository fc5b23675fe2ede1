"""Jobs in worker processes: results in order, the first error ends all, and no worker outlives its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import closing
from copy import deepcopy
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from dpc_interp.host import processes
from dpc_interp.host.processes import ProcessPool, map_processes

PARENT = """
import time
from contextlib import closing
from copy import deepcopy
from functools import partial
from dpc_interp.host.processes import map_processes
if __name__ == "__main__":
    map_processes([partial(time.sleep, 600)], "sleep")
"""


def test_results_come_in_the_order_of_the_jobs() -> None:
    """The first job ends last; the jobs are of the standard library, which a worker can import."""
    slow = partial(subprocess.check_output, ["sh", "-c", "sleep 1; echo slow"])
    assert map_processes([slow, partial(divmod, 7, 2), partial(pow, 2, 5)], "test", 2) == [b"slow\n", (3, 1), 32]


def test_the_first_error_ends_the_other_jobs(tmp_path: Path) -> None:
    waiting = [partial(time.sleep, 0.3)] * 5
    with pytest.raises(ValueError, match="not a number"):
        map_processes([partial(int, "not a number"), *waiting, partial((tmp_path / "last").touch)], "test", 1)
    assert not (tmp_path / "last").exists()


def test_fewer_jobs_than_cores_have_more_threads_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "n_cores", lambda: 4)
    with closing(ProcessPool()) as pool:
        assert [n for _, n in pool.run([torch.get_num_threads])] == [4]
        assert [n for _, n in pool.run([torch.get_num_threads] * 2)] == [2, 2], "started again for more jobs"
        assert [n for _, n in pool.run([torch.get_num_threads])] == [2]


def test_results_with_many_tensors_keep_no_file_open() -> None:
    tensors = [torch.full((1,), k) for k in range(500)]
    before = psutil.Process().num_fds()
    (copies,) = map_processes([partial(deepcopy, tensors)], "test", 1)
    assert [int(copy) for copy in copies] == list(range(500))
    assert psutil.Process().num_fds() < before + 50


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    workers: list[psutil.Process] = []
    while not workers and time.monotonic() < deadline:
        time.sleep(0.2)
        descendants = psutil.Process(parent.pid).children(recursive=True)
        workers = [process for process in descendants if process.num_threads() > 1]  # one thread waits for the parent
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=90)  # a worker that is still starting ends after its start
    assert not alive
