"""The same run on Ray as in one process: same store, same rows, though a worker is killed; errors are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from dpc_interp import (
    DPCInterpError,
    SoftPrompt,
    TriggerRule,
    ablate,
    analyse,
    evaluate,
    generate,
    load_problems,
    with_rationale,
)
from dpc_interp.evaluation import engine
from dpc_interp.evaluation.engine import LocalEngine, open_engine
from dpc_interp.evaluation.jobs import Analysed
from dpc_interp.lm.hooked import HookedModel

RULE = TriggerRule("late_share", 0.5)
OPTIONS = {"max_new_tokens": 8, "shard_size": 2, "progress": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers on this machine, as a user may have initialised them."""
    ray = pytest.importorskip("ray")
    if "DPC_INTERP_RAY" not in os.environ:
        pytest.skip("Ray gives itself 30 seconds to start, so this runs beside no other test: make test-ray")
    with ExitStack() as opened:
        for lives in (2, 1, 0):
            try:
                opened.enter_context(open_engine("ray", 2))  # it starts Ray, and would end it
                break
            except DPCInterpError as error:  # Ray gives itself half a minute, too little where others work
                if not lives or "Ray cannot be started" not in str(error):
                    raise
        assert ray.is_initialized()
        yield ray
    assert not ray.is_initialized()


def kill_a_worker(out: Path, killed: list[int]) -> None:
    """Wait until a worker has finished something, and kill it; the other may be starting still."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        file = out / "timings.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        workers = [json.loads(line)["worker"] for line in lines if line.endswith("\n")]
        if workers:
            killed.append(int(workers[0].rpartition("/")[2]))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.005)


def test_a_killed_worker_changes_nothing(
    cluster: Any, model: HookedModel, prompt: SoftPrompt, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    problems = load_problems("story", "test", n=40, max_steps=1)
    how: dict[str, Any] = {"rule": RULE, **OPTIONS}
    methods = ["base", "random", "always", "dpc"]
    alone = evaluate(model, problems, prompt, methods, tmp_path / "local", **how)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "ray", killed), daemon=True)
    killer.start()
    found = evaluate(model, problems, prompt, methods, tmp_path / "ray", engine="ray", n_workers=2, **how)
    killer.join()
    assert cluster.is_initialized(), "it was there before"
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    for name in ("instances", "summary", "triggers", "statistics"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(alone, name), check_exact=True)
    told = pd.read_json(tmp_path / "ray" / "timings.jsonl", lines=True)
    assert not told.duplicated(["stage", "shard"]).any(), "nothing that was finished is computed again"
    pids = [int(worker.rpartition("/")[2]) for worker in told["worker"]]
    assert killed
    assert killed[0] in pids
    assert os.getpid() not in pids
    assert set(pids[-6:]) - {killed[0]}, "others went on"

    # the rest of this cluster's use, since a worker takes long to start: a grid, and a job's own error
    again = ablate(model, problems[:6], prompt, ["always"], engine="ray", n_workers=1, **OPTIONS)
    pd.testing.assert_frame_equal(again, ablate(model, problems[:6], prompt, ["always"], **OPTIONS))
    job = Analysed([], prompt, "generated", "abs_of_sum", False)
    with open_engine("ray", 1) as running, pytest.raises(DPCInterpError, match=r"^there are no runs") as caught:
        list(running.map(model, [job]))
    assert "\n" not in str(caught.value)
    with open_engine("ray", 3) as running, pytest.raises(DPCInterpError, match=r"n_workers is 3, .* has 2$"):
        list(running.map(model, [job]))


def test_local_jobs_come_in_their_order(model: HookedModel) -> None:
    frames = [{"rows": pd.DataFrame({"k": [k]})} for k in range(3)]
    done = list(LocalEngine().map(model, [lambda _, k=k: frames[k] for k in range(3)]))
    assert [one.index for one in done] == [0, 1, 2]
    assert [one.frames for one in done] == frames
    assert all(one.seconds >= 0 and one.worker.endswith(f"/{os.getpid()}") for one in done)


def test_shards_of_whole_batches_leave_every_bit(model: HookedModel, prompt: SoftPrompt, monkeypatch) -> None:
    """Two shards of an analysis are the batches that `analyse` makes of all instances."""
    problems = load_problems("story", "test", n=40, max_steps=2)
    found = evaluate(model, problems, prompt, ["pt"], rule=RULE, **OPTIONS | {"shard_size": 16})
    runs = generate(model, problems, prompt, max_new_tokens=8, progress=False)
    assert [run.text for run in found.runs] == [run.text for run in runs]
    alone = analyse(model, with_rationale(runs, model), prompt, progress=False)
    assert len(alone.instances) > 32, "of several shards"
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(found.analysis, name), getattr(alone, name), check_exact=True)


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_is_started_without_dashboard_and_statistics(monkeypatch, address: str | None) -> None:
    """Where the user has a cluster, at RAY_ADDRESS, it is joined, and asked for nothing."""
    given: dict[str, object] = {}
    shut: list[bool] = []
    fake = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **options: given.update(options), shutdown=lambda: shut.append(True)
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with open_engine("ray", 2):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert not shut
    assert shut == [True]
    assert given.get("include_dashboard") is (None if address else False)
    assert given.get("num_cpus") == (None if address else 2)


def test_a_ray_that_does_not_start_is_one_line_and_leaves_no_process(monkeypatch) -> None:
    servers: list[subprocess.Popen] = []

    def init(**options: object) -> None:
        servers.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        raise Exception("The current node timed out\nduring startup.")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    with (
        pytest.raises(
            DPCInterpError, match=r"Ray cannot be started \(The current node timed out\); try again"
        ) as caught,
        open_engine("ray", 2),
    ):
        pytest.fail("it was not started")
    assert "\n" not in str(caught.value)
    assert servers[0].poll() is not None


def test_an_actor_that_dies_again_and_again_is_one_line(model: HookedModel, monkeypatch) -> None:
    """Ray's part is played: starting a worker four times takes long."""

    class RayError(Exception):
        pass

    def get(ready: object) -> object:
        raise RayError("The actor died unexpectedly\nand this is why")

    remote = SimpleNamespace(remote=lambda *_: object())
    actor = SimpleNamespace(run=remote)
    worker = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: actor))
    fake = SimpleNamespace(
        cluster_resources=lambda: {"CPU": 2.0},
        put=lambda packed: packed,
        remote=lambda **_: lambda cls: worker,
        wait=lambda running: (running, []),
        get=get,
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {})),
    )
    monkeypatch.setattr(engine, "_packed", lambda model: b"")
    with pytest.raises(
        DPCInterpError, match=r"a worker died 4 times on one shard \(The actor died .*\); give"
    ) as caught:
        list(engine.RayEngine(fake, 2).map(model, [lambda _: {}]))
    assert "\n" not in str(caught.value)
