"""Independent jobs on all cores: one process a core, one torch thread each.

A small model is bound by overhead, not arithmetic: two processes do nearly twice the work of two threads, and sums do
not depend on how many cores there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
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
    workers = min(n_processes or os.cpu_count() or 1, max(1, len(jobs)))
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
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


def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
