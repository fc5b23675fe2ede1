"""`RayEngine` computes jobs on the actors of a Ray cluster: `pip install "dpc_interp[ray]"`.

Each actor holds the model and is given one job at a time; the results return to this process. An actor that dies is
restarted and computes its job again.

A model travels in two parts: a pickle of everything but its parameters, and the parameters. Where `load_model` loaded
the model, each actor loads the same name and takes the parameters from there, so that they never pass through this
process; the digest of the weights must be the same. Otherwise a warning says why, and the parameters are put into Ray's
object store one by one, where the actors of a machine share that one copy. No actor computes with other weights.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpc_interp.errors import DPCInterpError, warn_user
from dpc_interp.execution.digest import model_digest
from dpc_interp.execution.engine import Job, JobResult, Result, run_job
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import ModelSource, model_source

MAX_ATTEMPTS = 4
"""Attempts per actor and per job before giving up."""


class RayEngine:
    """Computes jobs on the actors of a Ray cluster.

    Args:
        ray: the module, initialised.
        n_workers: maximum number of actors; None: one per GPU for a model on a GPU, else one per core.
    """

    def __init__(self, ray: Any, n_workers: int | None):
        self._ray, self._n_workers = ray, n_workers
        self._model: HookedModel | None = None
        self._parts: Any = None  # in the object store, as the weights
        self._source: ModelSource | None = None
        self._weights: list[Any] | None = None
        self._actors: list[Any] = []

    def map(self, model: HookedModel, jobs: Sequence[Job[Result]]) -> Iterator[JobResult[Result]]:
        """Yield each result as soon as it is finished, in any order; see `Engine.map`.

        Args:
            model: copied to the actors on the first call, and again when another model is given.
            jobs: see `Engine.map`.

        Raises:
            DPCInterpError: an actor died `MAX_ATTEMPTS` times on one job, or the cluster has fewer cores or GPUs than
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
                result: JobResult[Result] = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None  # the job's own error, without the stack of the actor
            except self._ray.exceptions.RayError as error:
                raise DPCInterpError(
                    f"a worker died {MAX_ATTEMPTS} times on one job ({str(error).partition(chr(10))[0][:80]}); "
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
            self._weights = None
            self._model = model
            # kept in the object store, from where a restarted actor reads it again
            self._parts = self._ray.put(ModelParts(_pickle_skeleton(model), model_digest(model)))
            self._source = model_source(model)
        # Ray restarts a dead actor and repeats its task, so a killed worker needs no code here
        worker = self._ray.remote(max_restarts=MAX_ATTEMPTS - 1, max_task_retries=MAX_ATTEMPTS - 1)(_Worker)
        worker = worker.options(num_cpus=1, num_gpus=int(resource == "GPU"))
        n_new = min(n_jobs, n_actors) - len(self._actors)
        if self._source is not None and n_new > 0:
            started = [worker.remote(self._parts, device.partition(":")[0], self._source) for _ in range(n_new)]
            self._keep_ready(started, self._source.name)
        while len(self._actors) < min(n_jobs, n_actors):
            self._source = None
            if self._weights is None:
                self._weights = [self._ray.put(PackedWeight.of(weight)) for weight in model.parameters()]
            self._actors.append(worker.remote(self._parts, device.partition(":")[0], None, *self._weights))

    def _keep_ready(self, started: Sequence[Any], name: str) -> None:
        """Keep the actors that loaded the model by its name with the weights that it has here; stop the others."""
        faults = []
        for actor in started:
            fault = self._fault(actor)
            if fault is None:
                self._actors.append(actor)
            else:
                faults.append(fault)
                self._ray.kill(actor)
        if faults:
            warn_user(
                f"{len(faults)} of {len(started)} Ray actors cannot load {name!r} by its name ({faults[0]}); they get "
                "the weights of the model here through Ray's object store, which needs memory for one copy a machine"
            )

    def _fault(self, actor: Any) -> str | None:
        """Why an actor that loads the model by its name cannot be used; None: it can."""
        try:
            same_weights: bool = self._ray.get(actor.has_same_weights.remote())
        except self._ray.exceptions.RayError as error:
            lines = [line.strip()[:120] for line in str(error).splitlines()] or [type(error).__name__]
            return next((line for line in reversed(lines) if "Error: " in line), lines[0])  # the end of its stack
        return None if same_weights else "the weights differ: changed here after loading, or other files there"


@dataclass(frozen=True)
class ModelParts:
    """What every actor is sent of a model.

    Attributes:
        skeleton: pickle of the model without its parameters.
        digest: of the parameters.
    """

    skeleton: bytes
    digest: str


@dataclass(frozen=True)
class PackedWeight:
    """A parameter in the order in which its numbers are stored, which Ray's object store takes without a second copy.

    Attributes:
        numbers: its bytes, 1-D.
        dtype: its dtype.
        shape: its axes in the order of storage.
        axes: for each axis of the parameter its place in `shape`.
    """

    numbers: NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @classmethod
    def of(cls, weight: Tensor) -> PackedWeight:
        """Pack a weight; it is copied if it is not on the CPU.

        Args:
            weight: with any strides.
        """
        order = sorted(range(weight.ndim), key=lambda axis: (-weight.stride()[axis], axis))
        stored = weight.detach().permute(order).cpu().contiguous()
        numbers = stored.as_strided((stored.numel(),), (1,)).view(torch.uint8).numpy()
        return cls(numbers, weight.dtype, tuple(stored.shape), tuple(order.index(axis) for axis in range(weight.ndim)))

    def unpack(self) -> Tensor:
        """The weight, in memory that it shares with `numbers`: nothing may write to it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            integers = torch.from_numpy(self.numbers).as_strided((self.numbers.size,), (1,))
        stored = integers.view(self.dtype).view(self.shape)
        return stored.permute(self.axes)


class _Worker:
    """The class of the Ray actors."""

    def __init__(self, parts: ModelParts, device: str, source: ModelSource | None, *weights: PackedWeight):
        if source is None:
            parameters = [weight.unpack() for weight in weights]
        else:
            parameters = list(source.load(device).parameters())
        self._model = _assemble(parts.skeleton, parameters)
        if device != "cpu":
            self._model.to(device)
        self._same_weights = model_digest(self._model) == parts.digest
        if source is None and not self._same_weights:
            raise DPCInterpError("the weights changed on their way to a worker; make the same call again")

    def has_same_weights(self) -> bool:
        """Whether the weights are those of the model that the engine was given."""
        return self._same_weights

    def run(self, index: int, job: Job[Result]) -> JobResult[Result]:
        if not self._same_weights:  # an actor that died has loaded the model again, from files that changed meanwhile
            raise DPCInterpError(
                "a restarted worker loaded other weights than before; restore the model's files, or load the model "
                "again and start a new run"
            )
        return run_job(self._model, index, job)


def _pickle_skeleton(model: HookedModel) -> bytes:
    """Pickle a model without its parameters and with its other tensors on the CPU, without moving the model itself."""
    from ray import cloudpickle

    indices = {id(weight): i for i, weight in enumerate(model.parameters())}

    class Skeleton(cloudpickle.Pickler):
        def persistent_id(self, obj: Any) -> tuple[int, bool] | None:
            return (indices[id(obj)], obj.requires_grad) if id(obj) in indices else None

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Tensor and obj.device.type != "cpu":
                return obj.cpu().__reduce_ex__(5)
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Skeleton(buffer, protocol=5).dump(model)
    return buffer.getvalue()


def _assemble(skeleton: bytes, weights: Sequence[Tensor]) -> HookedModel:
    """The model of a skeleton and its parameters."""
    parameters = [torch.nn.Parameter(weight.detach(), requires_grad=False) for weight in weights]

    class Assembler(pickle.Unpickler):
        def persistent_load(self, pid: tuple[int, bool]) -> torch.nn.Parameter:
            index, requires_grad = pid
            parameters[index].requires_grad_(requires_grad)
            return parameters[index]

    return Assembler(io.BytesIO(skeleton)).load()
