"""Jobs on all cores: no worker outlives its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil

PARENT = """
import time
from dpc_interp.parallel import map_processes
if __name__ == "__main__":
    map_processes(time.sleep, [(600,), (600,)], "sleep", 2)
"""


def test_workers_end_with_a_killed_parent(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    workers: list[psutil.Process] = []
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        children = psutil.Process(parent.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline()) and child.num_threads() > 1]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=90)  # one that is starting ends once it has started
    assert not alive
