"""Independent jobs on all cores: one process a core with one torch thread each, more threads where jobs are few.

A small model is bound by overhead, not arithmetic: two processes do nearly twice the work of two threads, and with one
thread sums do not depend on how many cores there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch
import transformers
from tqdm.auto import tqdm

Result = TypeVar("Result")


def map_processes(
    function: Callable[..., Result], jobs: Sequence[Iterable[object]], desc: str, n_processes: int | None = None
) -> list[Result]:
    """`function(*job)` for each job, in their order; `function` must be importable. The first error ends all jobs."""
    results: dict[int, Result] = {}
    cores = os.cpu_count() or 1
    workers = min(n_processes or cores, max(1, len(jobs)))
    with (
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start, initargs=(max(1, cores // workers),)
        ) as pool,
        tqdm(total=len(jobs), desc=desc, unit="job") as bar,
    ):
        futures = {pool.submit(function, *job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[i] for i in range(len(jobs))]


def _start(n_threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    transformers.utils.logging.disable_progress_bar()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would go on with jobs that nobody waits for."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
