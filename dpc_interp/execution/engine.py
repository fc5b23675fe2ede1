"""Engines compute jobs on a model: in this process, in processes of this machine, or on Ray actors (`RayEngine`).

A job is a frozen dataclass that maps a model to a result: to the frames of one shard of a stage, which the process that
holds the engine writes to the run store, or to a part of a study.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, Protocol, TypeVar, runtime_checkable

import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.digest import model_digest
from dpc_interp.host.processes import ProcessPool
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import ModelSource, model_source

ENGINES = ("local", "processes", "ray")
Frames = Mapping[str, pd.DataFrame]
Result = TypeVar("Result")
Job = Callable[[HookedModel], Result]
"""Computes one result; a frozen dataclass, so that it can be sent to another process."""


@dataclass(frozen=True)
class JobResult(Generic[Result]):
    """The result of one job.

    Attributes:
        index: of the job among those given to `Engine.map`.
        value: what the job returned; of a shard, its frames by name.
        seconds: wall time of the job.
        worker: host and process that computed it, `host/pid`.
    """

    index: int
    value: Result
    seconds: float
    worker: str


@runtime_checkable
class Engine(Protocol):
    """Computes jobs on a model."""

    def map(self, model: HookedModel, jobs: Sequence[Job[Result]]) -> Iterator[JobResult[Result]]:
        """Yield each result as soon as it is finished, in any order.

        Args:
            model: passed to each job.
            jobs: independent of each other; they are started in their order.
        """
        ...


class LocalEngine:
    """Computes one job after another in this process."""

    def map(self, model: HookedModel, jobs: Sequence[Job[Result]]) -> Iterator[JobResult[Result]]:
        """Yield the results in the order of the jobs; see `Engine.map`."""
        for index, job in enumerate(jobs):
            yield run_job(model, index, job)


class ProcessEngine:
    """Computes jobs in processes of this machine, each with its own copy of a small model on the CPU.

    Args:
        n_workers: maximum number of processes; None: one per core.
    """

    def __init__(self, n_workers: int | None = None):
        self._pool = ProcessPool(n_workers)

    def map(self, model: HookedModel, jobs: Sequence[Job[Result]]) -> Iterator[JobResult[Result]]:
        """Yield each result as soon as it is finished, in any order; see `Engine.map`.

        Args:
            model: that `load_model` loaded; each process loads it again by its name.
            jobs: see `Engine.map`.

        Raises:
            DPCInterpError: a model that `load_model` did not load, whose weights were changed after it was loaded, or
                that is on a GPU.
        """
        source, key = process_source(model), model_digest(model)
        for _, result in self._pool.run([_JobOfSource(source, key, index, job) for index, job in enumerate(jobs)]):
            yield result

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def process_source(model: HookedModel) -> ModelSource:
    """Where each process loads the model from.

    Args:
        model: any supported model.

    Raises:
        DPCInterpError: processes cannot load it again, or each would hold a copy of it on a GPU.
    """
    source = model_source(model)
    if source is None:
        raise DPCInterpError('engine="processes" loads the model in each process; load it with dpc.load_model')
    if str(model.cfg.device) != "cpu":
        raise DPCInterpError(
            f'engine="processes" runs on the CPU, and this model is on {model.cfg.device}; use engine="local", or '
            '"ray" for several GPUs'
        )
    return source


@dataclass(frozen=True)
class _JobOfSource(Generic[Result]):
    """A job with the source of its model, and the digest that its weights must have."""

    source: ModelSource
    key: str
    index: int
    job: Job[Result]

    def __call__(self) -> JobResult[Result]:
        return run_job(_load_once(self.source, self.key), self.index, self.job)


@cache
def _load_once(source: ModelSource, key: str) -> HookedModel:
    model = source.load("cpu")
    if model_digest(model) != key:
        raise DPCInterpError(
            f"the weights differ from those that {source.name} gives: they were changed after loading, or the files "
            'were; load the model again, or use engine="local"'
        )
    return model


def run_job(model: HookedModel, index: int, job: Job[Result]) -> JobResult[Result]:
    """Run one job in this process and time it.

    Args:
        model: passed to the job.
        index: of the job, copied to the result.
        job: computes the result.
    """
    start = time.perf_counter()
    value = job(model)
    return JobResult(index, value, time.perf_counter() - start, f"{socket.gethostname()}/{os.getpid()}")
