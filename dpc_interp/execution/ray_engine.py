"""`RayEngine` computes shards on the actors of a Ray cluster: `pip install "dpc_interp[ray]"`.

Each actor holds the model and is given one shard at a time; the frames return to this process, which alone writes to
the run store. An actor that dies is restarted and computes its shard again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from torch import Tensor

from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.engine import Job, ShardResult, run_job
from dpc_interp.models.hooked import HookedModel

MAX_ATTEMPTS = 4
"""Attempts per actor and per shard before giving up."""


class RayEngine:
    """Computes shards on the actors of a Ray cluster.

    Args:
        ray: the module, initialised.
        n_workers: maximum number of actors; None: one per GPU for a model on a GPU, else one per core.
    """

    def __init__(self, ray: Any, n_workers: int | None):
        self._ray, self._n_workers = ray, n_workers
        self._model: HookedModel | None = None
        self._model_ref: Any = None
        self._actors: list[Any] = []

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[ShardResult]:
        """Yield each result as soon as it is finished, in any order; see `Engine.map`.

        Args:
            model: copied to the actors on the first call, and again when another model is given.
            jobs: one per shard.

        Raises:
            DPCInterpError: an actor died `MAX_ATTEMPTS` times on one shard, or the cluster has fewer cores or GPUs than
                `n_workers`. Errors of a job itself are raised unchanged.
        """
        self._ensure_actors(model, len(jobs))
        waiting = list(enumerate(jobs))
        running: dict[Any, Any] = {}  # future -> the actor that computes it
        idle = list(self._actors)
        while waiting or running:
            while waiting and idle:
                actor, (index, job) = idle.pop(), waiting.pop(0)
                running[actor.run.remote(index, job)] = actor
            (ready, *_), _ = self._ray.wait(list(running))
            idle.append(running.pop(ready))
            try:
                result: ShardResult = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None  # the job's own error, without the stack of the actor
            except self._ray.exceptions.RayError as error:
                raise DPCInterpError(
                    f"a worker died {MAX_ATTEMPTS} times on one shard ({str(error).partition(chr(10))[0][:80]}); "
                    "give its machine more memory or use a smaller batch_size, and make the same call again to resume"
                ) from error
            yield result

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _ensure_actors(self, model: HookedModel, n_jobs: int) -> None:
        """Start actors that hold the model, one for each job up to the number of workers."""
        device = str(model.cfg.device)
        resource = "CPU" if device == "cpu" else "GPU"
        n_available = int(self._ray.cluster_resources().get(resource, 0))
        n_actors = self._n_workers or max(1, n_available)
        if n_actors > n_available:  # the actors would never be scheduled
            raise DPCInterpError(
                f"n_workers is {n_actors}, and each needs a {resource} for a model on {device}, "
                f"but the Ray cluster has {n_available}"
            )
        if self._model is not model:
            self.close()
            self._model, self._model_ref = model, self._ray.put(_pickle_model(model))
        # Ray restarts a dead actor and repeats its task, so a killed worker needs no code here
        worker = self._ray.remote(max_restarts=MAX_ATTEMPTS - 1, max_task_retries=MAX_ATTEMPTS - 1)(_Worker)
        needs = {"num_cpus": 1, "num_gpus": int(resource == "GPU")}
        while len(self._actors) < min(n_jobs, n_actors):
            self._actors.append(worker.options(**needs).remote(self._model_ref, device.partition(":")[0]))


class _Worker:
    """The class of the Ray actors."""

    def __init__(self, model_bytes: bytes, device: str):
        from ray import cloudpickle

        self._model = cloudpickle.loads(model_bytes)
        if device != "cpu":
            self._model.to(device)

    def run(self, index: int, job: Job) -> ShardResult:
        return run_job(self._model, index, job)


def _pickle_model(model: HookedModel) -> bytes:
    """Pickle a model with its tensors on the CPU, without moving the model itself."""
    from ray import cloudpickle

    class OnCPU(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Tensor and obj.device.type != "cpu":
                return obj.cpu().__reduce_ex__(5)
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    OnCPU(buffer, protocol=5).dump(model)
    return buffer.getvalue()


def import_ray() -> Any:
    """Import Ray, with its usage statistics turned off.

    Raises:
        DPCInterpError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DPCInterpError('Ray is not installed; run pip install "dpc_interp[ray]"') from error
    return ray


@contextmanager
def open_ray(n_workers: int | None) -> Iterator[RayEngine]:
    """An engine on the initialised Ray, else on the cluster at `RAY_ADDRESS`, else on a Ray started on this machine.

    A connection or cluster that was made here is shut down at the end.

    Args:
        n_workers: see `RayEngine`; also the cores of a Ray that is started here.

    Raises:
        DPCInterpError: Ray is not installed or cannot be started.
    """
    ray = import_ray()
    starts = not ray.is_initialized()
    if starts:
        _start_ray(ray, n_workers)
    engine = RayEngine(ray, n_workers)
    try:
        yield engine
    finally:
        engine.close()
        if starts:
            ray.shutdown()


def _start_ray(ray: Any, n_workers: int | None) -> None:
    """Connect to the cluster at `RAY_ADDRESS`, or start one on this machine without its dashboard."""
    connects = "RAY_ADDRESS" in os.environ
    settings = {} if connects else {"num_cpus": n_workers, "include_dashboard": False}
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    except Exception as error:  # Ray raises bare exceptions here
        ray.shutdown()
        _kill(set(psutil.Process().children(recursive=True)) - before)
        reason = str(error).partition("\n")[0].partition(". ")[0][:120]
        raise DPCInterpError(f"Ray cannot be started ({reason}); try again, or call ray.init yourself first") from error


def _kill(processes: Collection[psutil.Process]) -> None:
    """Kill the servers that a failed start leaves running; they would hold the cores of the next one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
