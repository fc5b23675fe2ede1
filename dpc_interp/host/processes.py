"""Independent jobs on all cores: one process per core with one torch thread, or more threads if there are fewer jobs.

A small model is bound by overhead, not by arithmetic: two processes do nearly twice the work of two threads, and with
one thread sums do not depend on the number of cores.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for_jobs
from contextlib import closing
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch
import transformers
from tqdm.auto import tqdm

PRELOADED = ["torch", "transformer_lens"]
"""Imported once, by the server that workers are forked from: a worker starts in a second instead of eight."""
Result = TypeVar("Result")


class ProcessPool:
    """Worker processes that start when they are first needed and stay until `close`.

    Args:
        n_processes: maximum number of worker processes; None: one per core.
    """

    def __init__(self, n_processes: int | None = None):
        self.n_processes = n_processes or n_cores()
        self._executor: ProcessPoolExecutor | None = None
        self._n_started = 0

    def run(self, jobs: Sequence[Callable[[], Result]]) -> Iterator[tuple[int, Result]]:
        """Run each job in a worker process; the first error ends all of them.

        Args:
            jobs: frozen dataclasses with a `__call__`, so that they can be sent to another process.

        Yields:
            The index of a job and its result, as soon as it is finished.
        """
        n_needed = min(self.n_processes, max(1, len(jobs)))
        if self._executor is None or n_needed > self._n_started:
            self.close()
            self._executor, self._n_started = _start_pool(n_needed), n_needed
        waiting, running = deque(enumerate(jobs)), dict[Future[bytes], int]()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._n_started:  # one for each worker, and one that is next
                    index, job = waiting.popleft()
                    running[self._executor.submit(_run_pickled, pickle.dumps(job))] = index
                finished, _ = wait_for_jobs(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield running.pop(future), pickle.loads(future.result())
        except BaseException:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
            raise

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _start_pool(n_processes: int) -> ProcessPoolExecutor:
    """Worker processes that share the cores."""
    # forking this process itself would copy its locks, and the threads of torch that hold them would not exist
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(PRELOADED)
    n_threads = max(1, n_cores() // n_processes)
    return ProcessPoolExecutor(n_processes, mp_context=context, initializer=_start_worker, initargs=(n_threads,))


def n_cores() -> int:
    """The cores that this process may use, which a scheduler or container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_processes(jobs: Sequence[Callable[[], Result]], desc: str, n_processes: int | None = None) -> list[Result]:
    """Run each job in a worker process, with a progress bar; the first error ends all of them.

    Args:
        jobs: see `ProcessPool.run`.
        desc: label of the progress bar.
        n_processes: maximum number of worker processes; None: one per core.

    Returns:
        The results, in the order of the jobs.
    """
    with closing(ProcessPool(n_processes)) as pool:
        results = dict(tqdm(pool.run(jobs), desc=desc, unit="job", total=len(jobs)))
    return [results[i] for i in range(len(jobs))]


def _run_pickled(job: bytes) -> bytes:
    """Run a job. Plain pickles copy tensors; those of torch would keep a file open for each tensor of each result."""
    return pickle.dumps(pickle.loads(job)())


def _start_worker(n_threads: int) -> None:
    """Prepare a worker process for jobs."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    transformers.utils.logging.disable_progress_bar()


def _exit_with_parent() -> None:
    """Exit when the parent dies: a killed parent cannot end its workers, which would go on with abandoned jobs."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
