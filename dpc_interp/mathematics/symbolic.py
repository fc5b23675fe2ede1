r"""Comparison of expressions by `math-verify`, in a process of its own, so that every thread gets the same verdict.

`math-verify` limits its time by `SIGALRM`. That works in the main thread only and replaces an alarm of the caller. Here
one process does all comparisons: it is started at the first use (0.6 to 2 seconds, about 90 MB), a comparison then
takes 5 to 50 milliseconds, and it ends with the program that started it. It limits the processor time of a comparison
itself; if it does not answer within `ELAPSED_SECONDS`, it is killed, the texts count as different, and the next
comparison starts another one.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from dpc_interp.errors import DPCInterpError

WORKER = Path(__file__).with_name("symbolic_worker.py")
START_SECONDS = 120
"""Limit for the start of the process, on a busy machine with a slow disk."""
ELAPSED_SECONDS = 30
"""Limit for one comparison, several times its limit of processor time."""
N_CACHED = 4096
MAX_SYMBOLIC_LENGTH = 200
"""Number of characters. Longer texts cannot be compared symbolically in reasonable time."""


@lru_cache(N_CACHED)
def same_expression(answer: str, gold: str) -> bool:
    """Whether two LaTeX texts are the same number, expression, relation, set or matrix.

    Args:
        answer: LaTeX without delimiters.
        gold: LaTeX without delimiters.

    Returns:
        True if they are the same; False also for a text that cannot be read, is longer than `MAX_SYMBOLIC_LENGTH` or needs too
        much time.

    Raises:
        DPCInterpError: the process cannot be started.
    """
    return max(len(answer), len(gold)) <= MAX_SYMBOLIC_LENGTH and WORKERS.call("same", answer, gold) is True


@lru_cache(N_CACHED)
def exact_value(text: str) -> Fraction | None:
    r"""The value of a real number in LaTeX, such as `\sqrt{2}`, to 40 significant digits.

    Args:
        text: LaTeX without delimiters.

    Returns:
        The value; None if the text is not a real number of less than 400 digits, or longer than `MAX_SYMBOLIC_LENGTH`.

    Raises:
        DPCInterpError: the process cannot be started.
    """
    digits = WORKERS.call("value", text) if len(text) <= MAX_SYMBOLIC_LENGTH else None
    return Fraction(digits) if isinstance(digits, str) else None


class WorkerProcess:
    """The process that compares expressions; at most one for each Python process, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def call(self, *request: str) -> object:
        """Send one request and wait for its result.

        Args:
            request: the name of a function of the worker and its arguments.

        Returns:
            Its result; None if it did not come in time.

        Raises:
            DPCInterpError: the process cannot be started.
        """
        with self._lock:
            try:
                process = self._process or self._start()
                return self._exchange(process, json.dumps(request), ELAPSED_SECONDS)
            except BaseException:  # an interrupted exchange would leave its result to the next one
                self._stop()
                raise

    def close(self) -> None:
        """End the process; the next call starts another one."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[str]:
        self._process = process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy orders terms by hash
            start_new_session=True,  # an interrupt from the terminal is for the caller
        )
        state = self._exchange(process, None, START_SECONDS)
        if state != "ready":
            reason = state or "it ended at once"
            raise DPCInterpError(
                f"the process that compares expressions cannot be started ({reason}); "
                f"check that `{sys.executable} -c 'import math_verify'` works"
            )
        return process

    def _exchange(self, process: subprocess.Popen[str], request: str | None, seconds: float) -> object:
        """Write a line, if any, and read a line; the process is killed if it takes longer than `seconds`."""
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                process.stdin.write(request + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            self._stop()
            return None
        return json.loads(line)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def forget(self) -> None:
        """Leave the process to the parent of this forked process, whose pipes it must not use."""
        self._lock, self._process = threading.Lock(), None


WORKERS = WorkerProcess()
atexit.register(WORKERS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKERS.forget)
