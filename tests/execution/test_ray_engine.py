"""Ray's start, end and failures, with a stand-in for Ray; `test_engine.py` has the run on real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from dpc_interp import DPCInterpError
from dpc_interp.execution import ray_engine
from dpc_interp.execution.engine import ShardResult
from dpc_interp.execution.ray_engine import RayEngine, open_ray
from dpc_interp.models.hooked import HookedModel


class RayError(Exception):
    """Stands for `ray.exceptions.RayError`."""


class RayTaskError(RayError):
    """Stands for `ray.exceptions.RayTaskError`."""

    def __init__(self, cause: Exception):
        super().__init__("a long stack of the actor\nand more")
        self.cause = cause


class FakeRay:
    """One process that computes each job when its result is requested, the last submitted first."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, get: Callable[[Any], Any] = lambda future: future(), n_cpus: int = 2):
        self.get, self.n_cpus = get, n_cpus
        self.n_alive = self.n_started = self.n_running = self.most_running = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.n_cpus)}

    def put(self, value: object) -> object:
        return value

    def remote(self, **options: Any) -> Callable[[type], Any]:
        return lambda cls: SimpleNamespace(options=lambda **needs: SimpleNamespace(remote=self._start))

    def _start(self, model: object, device: str) -> Any:
        self.n_alive += 1
        self.n_started += 1
        return SimpleNamespace(run=SimpleNamespace(remote=self._submit))

    def _submit(self, index: int, job: Callable[[Any], Any]) -> Callable[[], ShardResult]:
        self.n_running += 1
        self.most_running = max(self.most_running, self.n_running)
        return lambda: ShardResult(index, job(None), 0.0, "host/1")

    def wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        self.n_running -= 1
        return running[-1:], running[:-1]

    def kill(self, actor: object) -> None:
        self.n_alive -= 1


@pytest.fixture(autouse=True)
def _no_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_pickle_model", lambda model: b"")


def jobs(n: int) -> list[Any]:
    return [lambda _, k=k: {"rows": pd.DataFrame({"k": [k]})} for k in range(n)]


def test_every_job_is_computed_once_by_at_most_n_workers(model: HookedModel) -> None:
    ray = FakeRay(n_cpus=8)
    engine = RayEngine(ray, 3)
    frames = {result.index: result.frames["rows"] for result in engine.map(model, jobs(7))}
    assert {index: frame["k"].tolist() for index, frame in frames.items()} == {k: [k] for k in range(7)}
    assert ray.n_started == ray.most_running == 3
    list(engine.map(model, jobs(2)))
    assert ray.n_started == 3, "the actors hold the model already"
    engine.close()
    assert ray.n_alive == 0


def test_another_model_starts_other_actors(model: HookedModel, build: Callable[..., HookedModel]) -> None:
    ray = FakeRay()
    engine = RayEngine(ray, None)
    list(engine.map(model, jobs(1)))
    list(engine.map(build("plain"), jobs(5)))
    assert (ray.n_started, ray.n_alive) == (1 + 2, 2)


def test_a_jobs_own_error_is_raised_unchanged(model: HookedModel) -> None:
    cause = DPCInterpError("one line")

    def get(future: object) -> object:
        raise RayTaskError(cause)

    with pytest.raises(DPCInterpError) as caught:
        list(RayEngine(FakeRay(get), 2).map(model, jobs(1)))
    assert caught.value is cause


def test_an_actor_that_keeps_dying_is_one_line(model: HookedModel) -> None:
    def get(future: object) -> object:
        raise RayError("The actor died unexpectedly\nand this is why")

    with pytest.raises(
        DPCInterpError, match=r"a worker died 4 times on one shard \(The actor died .*\); give"
    ) as caught:
        list(RayEngine(FakeRay(get), 2).map(model, jobs(1)))
    assert "\n" not in str(caught.value)


def test_more_workers_than_cores_are_an_error(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match=r"n_workers is 3, .* has 2$"):
        list(RayEngine(FakeRay(n_cpus=2), 3).map(model, jobs(1)))


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_is_started_without_dashboard_and_statistics(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """A cluster at RAY_ADDRESS is joined with its own settings."""
    settings: dict[str, object] = {}
    events: list[str] = []

    def init(**options: object) -> None:
        events.append("start")
        settings.update(options)

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: events.append("shut down"))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with open_ray(2):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        events.append("use")
    assert events == ["start", "use", "shut down"]
    assert settings.get("include_dashboard") is (None if address else False)
    assert settings.get("num_cpus") == (None if address else 2)


def test_the_users_own_ray_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        pytest.fail("it belongs to the user")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, init=fail, shutdown=fail))
    with open_ray(2):
        pass


def test_a_failed_start_is_one_line_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[subprocess.Popen] = []

    def init(**options: object) -> None:
        servers.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        raise Exception("The current node timed out\nduring startup.")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(
            DPCInterpError, match=r"Ray cannot be started \(The current node timed out\); try again"
        ) as caught,
        open_ray(2),
    ):
        pytest.fail("it was not started")
    assert "\n" not in str(caught.value)
    assert servers[0].poll() is not None
