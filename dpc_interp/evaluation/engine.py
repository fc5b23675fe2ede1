"""Where the shards of a run are computed: one by one in this process, or by actors on a Ray cluster.

Each actor holds the model and is given one shard at a time; the frames come back to this process, which alone writes
to the store. An actor that dies is started again, with the shard that it had. `pip install "dpc_interp[ray]"`.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import psutil
from torch import Tensor

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.lm.hooked import HookedModel

ENGINES = ("local", "ray")
LIVES = 4
"""So many times an actor is started, and a shard tried, before the run is given up."""
Frames = Mapping[str, pd.DataFrame]
Job = Callable[[HookedModel], Frames]
"""Computes one shard; a frozen dataclass, so that it can be sent."""


@dataclass(frozen=True)
class Done:
    """A finished job: which, its frames, how long it took and on what machine and process."""

    index: int
    frames: Frames
    seconds: float
    worker: str


@runtime_checkable
class Engine(Protocol):
    """Computes jobs on a model."""

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[Done]:
        """Each job as soon as it is finished, in any order."""
        ...


class LocalEngine:
    """One job after the other, in this process."""

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[Done]:
        """See `Engine`."""
        for index, job in enumerate(jobs):
            yield _done(model, index, job)


class RayEngine:
    """Actors of a Ray cluster, `n_workers` at most; None: one a GPU where the model is on one, else one a core."""

    def __init__(self, ray: Any, n_workers: int | None):
        self._ray, self._n_workers = ray, n_workers
        self._model: HookedModel | None = None
        self._packed: Any = None
        self._actors: list[Any] = []

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[Done]:
        """See `Engine`.

        Raises:
            DPCInterpError: an actor died again and again, or the cluster has no room for `n_workers`.
        """
        self._hold(model, len(jobs))
        waiting = list(enumerate(jobs))
        running: dict[Any, Any] = {}  # what Ray is to return -> the actor that computes it
        idle = list(self._actors)
        while waiting or running:
            while waiting and idle:
                actor, (index, job) = idle.pop(), waiting.pop(0)
                running[actor.run.remote(index, job)] = actor
            (ready, *_), _ = self._ray.wait(list(running))
            idle.append(running.pop(ready))
            try:
                done: Done = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:  # the job's own, behind the actor's stack
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                raise DPCInterpError(
                    f"a worker died {LIVES} times on one shard ({str(error).partition(chr(10))[0][:80]}); "
                    "give its machine more memory or take a smaller batch_size, and go on by the same call"
                ) from error
            yield done

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _hold(self, model: HookedModel, n_jobs: int) -> None:
        """Have an actor with the model for each job, as far as there may be."""
        device = str(model.cfg.device)
        resource = "CPU" if device == "cpu" else "GPU"
        n_there = int(self._ray.cluster_resources().get(resource, 0))
        n_wanted = self._n_workers or max(1, n_there)
        if n_wanted > n_there:  # the actors would wait for ever
            raise DPCInterpError(
                f"n_workers is {n_wanted}, one a {resource} for a model on {device}, but the Ray cluster has {n_there}"
            )
        if self._model is not model:
            self.close()
            self._model, self._packed = model, self._ray.put(_packed(model))
        worker = self._ray.remote(max_restarts=LIVES - 1, max_task_retries=LIVES - 1)(_Worker)
        needs = {"num_cpus": 1, "num_gpus": int(resource == "GPU")}
        while len(self._actors) < min(n_jobs, n_wanted):
            self._actors.append(worker.options(**needs).remote(self._packed, device.partition(":")[0]))


class _Worker:
    """What an actor is."""

    def __init__(self, packed: bytes, device: str):
        from ray import cloudpickle

        self._model = cloudpickle.loads(packed)
        if device != "cpu":
            self._model.to(device)

    def run(self, index: int, job: Job) -> Done:
        return _done(self._model, index, job)


def _done(model: HookedModel, index: int, job: Job) -> Done:
    start = time.perf_counter()
    frames = job(model)
    return Done(index, frames, time.perf_counter() - start, f"{socket.gethostname()}/{os.getpid()}")


def _packed(model: HookedModel) -> bytes:
    """A model as bytes, its tensors on the CPU whatever its device; it stays what and where it is."""
    from ray import cloudpickle

    class OnCPU(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Tensor and obj.device.type != "cpu":
                return obj.cpu().__reduce_ex__(5)
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    OnCPU(buffer, protocol=5).dump(model)
    return buffer.getvalue()


def check_engine(engine: str, n_workers: int | None) -> None:
    """Refuse an engine that is not known or not installed, and workers that there cannot be."""
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "local" and n_workers is not None:
        raise DPCInterpError('n_workers counts the actors of Ray; give engine="ray" too, or leave it out')
    if n_workers is not None and n_workers < 1:
        raise DPCInterpError(f"n_workers is {n_workers}; give at least 1")
    if engine == "ray":
        _ray()


@contextmanager
def open_engine(engine: str, n_workers: int | None) -> Iterator[Engine]:
    """An engine while the context lasts: on the Ray that is initialised, or at `RAY_ADDRESS`, or on one started here.

    Raises:
        DPCInterpError: see `check_engine`; or Ray cannot be started.
    """
    check_engine(engine, n_workers)
    if engine == "local":
        yield LocalEngine()
        return
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        _start(ray, n_workers)
    running = RayEngine(ray, n_workers)
    try:
        yield running
    finally:
        running.close()
        if started:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DPCInterpError('Ray is not installed; run pip install "dpc_interp[ray]"') from error
    return ray


def _start(ray: Any, n_workers: int | None) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start one on this machine, without its dashboard."""
    joined = "RAY_ADDRESS" in os.environ
    of_ours = {} if joined else {"num_cpus": n_workers, "include_dashboard": False}
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **of_ours)
    except Exception as error:  # Ray raises bare ones
        ray.shutdown()
        _end(set(psutil.Process().children(recursive=True)) - before)
        reason = str(error).partition("\n")[0].partition(". ")[0][:120]
        raise DPCInterpError(
            f"Ray cannot be started ({reason}); try again, or start it yourself by ray.init"
        ) from error


def _end(processes: Collection[psutil.Process]) -> None:
    """A start that failed leaves Ray's servers behind, which would take the cores from the next one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
