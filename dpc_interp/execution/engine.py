"""Engines compute the shards of a run: `LocalEngine` one by one in this process, `RayEngine` on Ray actors.

An engine is given jobs, frozen dataclasses that map a model to the frames of one shard. The process that holds the
engine is the only one that writes to the run store.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from dpc_interp.models.hooked import HookedModel

ENGINES = ("local", "processes", "ray")
Frames = Mapping[str, pd.DataFrame]
Job = Callable[[HookedModel], Frames]
"""Computes one shard; a frozen dataclass, so that it can be sent to another process."""


@dataclass(frozen=True)
class ShardResult:
    """The result of one job.

    Attributes:
        index: of the job among those given to `Engine.map`.
        frames: of the shard, by name.
        seconds: wall time of the job.
        worker: host and process that computed it, `host/pid`.
    """

    index: int
    frames: Frames
    seconds: float
    worker: str


@runtime_checkable
class Engine(Protocol):
    """Computes jobs on a model."""

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[ShardResult]:
        """Yield each result as soon as it is finished, in any order.

        Args:
            model: passed to each job.
            jobs: one per shard.
        """
        ...


class LocalEngine:
    """Computes one job after another in this process."""

    def map(self, model: HookedModel, jobs: Sequence[Job]) -> Iterator[ShardResult]:
        """Yield the results in the order of the jobs; see `Engine.map`."""
        for index, job in enumerate(jobs):
            yield run_job(model, index, job)


def run_job(model: HookedModel, index: int, job: Job) -> ShardResult:
    """Run one job in this process and time it.

    Args:
        model: passed to the job.
        index: of the job, copied to the result.
        job: computes the frames of one shard.
    """
    start = time.perf_counter()
    frames = job(model)
    return ShardResult(index, frames, time.perf_counter() - start, f"{socket.gethostname()}/{os.getpid()}")
