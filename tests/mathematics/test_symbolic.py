"""Comparison in a process of its own: values, time limits, damaged and forked processes."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.mathematics import symbolic
from dpc_interp.mathematics.symbolic import WorkerProcess, exact_value, same_expression


def test_expressions() -> None:
    assert same_expression("x^2+1", "1+x^2")
    assert not same_expression("x^2+1", "1-x^2")
    assert not same_expression("x" * 201, "x" * 201 + "+0")


def test_values() -> None:
    assert abs(exact_value("\\sqrt{2}") ** 2 - 2) < Fraction(1, 10**38)
    assert exact_value("x") is None
    assert exact_value("1/2004!") is None
    assert exact_value("1" * 201) is None


def test_many_threads_share_one_process() -> None:
    pairs = [(f"x^{k}+{k}", f"{k}+x^{k}") for k in range(2, 12)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda pair: same_expression(*pair), pairs))


def test_a_comparison_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed, and the next call starts another one."""
    worker = WorkerProcess()
    assert worker.call("same", "x", "x") is True
    monkeypatch.setattr(symbolic, "ELAPSED_SECONDS", 0.2)
    assert worker.call("same", "9^{9^{9^9}}", "1") is None
    monkeypatch.setattr(symbolic, "ELAPSED_SECONDS", 30)
    assert worker.call("same", "x+1", "1+x") is True
    worker.close()


def test_a_killed_process_is_replaced() -> None:
    worker = WorkerProcess()
    assert worker.call("same", "x", "x") is True
    worker._process.kill()
    worker._process.wait()
    assert worker.call("same", "x", "x") is None
    assert worker.call("same", "x", "x") is True
    worker.close()
    worker.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_starts_its_own() -> None:
    assert symbolic.WORKERS.call("same", "x", "x") is True
    pid = os.fork()
    if pid == 0:
        os._exit(0 if symbolic.WORKERS._process is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert symbolic.WORKERS.call("same", "x", "x") is True


def test_a_process_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("print('\"No module named math_verify\"')\n")
    monkeypatch.setattr(symbolic, "WORKER", broken)
    with pytest.raises(
        DPCInterpError, match=r"cannot be started \(No module named math_verify\); check that"
    ) as caught:
        WorkerProcess().call("same", "x", "x")
    assert sys.executable in str(caught.value)
    broken.write_text("")
    with pytest.raises(DPCInterpError, match="it ended at once"):
        WorkerProcess().call("same", "x", "x")
