"""`RunConfig`: how an evaluation is run. Results do not depend on it; `Options` says what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.execution.backoff import check_batch_size
from dpc_interp.execution.engine import ENGINES, Engine, LocalEngine, ProcessEngine
from dpc_interp.execution.ray_cluster import connect_ray, import_ray
from dpc_interp.execution.ray_engine import RayEngine
from dpc_interp.host.processes import n_cores


@dataclass(frozen=True)
class RunConfig:
    """How an evaluation or a grid is run.

    Attributes:
        out: folder that keeps each finished shard; an interrupted run resumes when the same call is made again. None:
            nothing is stored (the command `study` then uses studies/ and the name of the model).
        batch_size: maximum number of questions decoded together.
        shard_size: number of instances that are stored together (at most 64 in an analysis). A smaller shard loses
            less when a run is interrupted and keeps more workers busy; no batch is larger than a shard.
        engine: what computes the shards, and the prompts of a study: `local`, this process; `processes`, one process a
            core, each with its own copy of a small model on the CPU; `ray`, actors that each hold the model, on the
            Ray cluster that is initialised or at RAY_ADDRESS, or else on one started on this machine.
        n_workers: number of processes, or of Ray actors; None: one per GPU for a model on a GPU on Ray, else one per
            core.
        speculate_from_gold: use the written rationales as draft tokens for the answers of prompt tuning. The answers
            are the same and come sooner where most are correct, but `timings` no longer measure what decoding costs.
            None: in grids, sweeps and studies, which report no timings, but not in `evaluate`.
        progress: show progress bars.

    Raises:
        DPCInterpError: a size or number of workers below 1, an unknown engine, `n_workers` with the engine `local`, or
            Ray is not installed.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.RunConfig(batch_size=32).shard_size
        256
    """

    out: str | Path | None = None
    batch_size: int = 128
    shard_size: int = 256
    engine: str = "local"
    n_workers: int | None = None
    speculate_from_gold: bool | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        if self.shard_size < 1:
            raise DPCInterpError(f"shard_size is {self.shard_size}; give at least 1")
        if self.engine not in ENGINES:
            raise UnknownNameError("engine", self.engine, ENGINES)
        if self.engine == "local" and self.n_workers is not None:
            raise DPCInterpError('n_workers counts processes or Ray actors; give engine="processes" or "ray"')
        if self.n_workers is not None and self.n_workers < 1:
            raise DPCInterpError(f"n_workers is {self.n_workers}; give at least 1")
        if self.engine == "ray":
            import_ray()  # report a missing Ray before any work

    def count_workers(self, device: str) -> int:
        """The number of workers that share the jobs.

        Args:
            device: of the model.
        """
        if self.engine == "local":
            return 1
        on_gpu = self.engine == "ray" and device.startswith("cuda")
        return self.n_workers or (max(1, torch.cuda.device_count()) if on_gpu else n_cores())

    @contextmanager
    def open_engine(self) -> Iterator[Engine]:
        """Open the engine for the length of the context.

        Raises:
            DPCInterpError: Ray cannot be started.
        """
        if self.engine == "local":
            yield LocalEngine()
        elif self.engine == "processes":
            with closing(ProcessEngine(self.n_workers)) as processes:
                yield processes
        else:
            with connect_ray(self.n_workers) as ray, closing(RayEngine(ray, self.n_workers)) as engine:
                yield engine
