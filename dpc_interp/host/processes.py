"""Independent jobs on all cores: one process per core with one torch thread, or more threads if there are fewer jobs.

A small model is bound by overhead, not by arithmetic: two processes do nearly twice the work of two threads, and with
one thread sums do not depend on the number of cores.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch
import transformers
from tqdm.auto import tqdm

PRELOADED = ["torch", "transformer_lens"]
"""Imported once, by the server that workers are forked from: a worker starts in a second instead of eight."""
Result = TypeVar("Result")


def map_processes(jobs: Sequence[Callable[[], Result]], desc: str, n_processes: int | None = None) -> list[Result]:
    """Run each job in a worker process, with a progress bar; the first error ends all of them.

    Args:
        jobs: see `run_processes`.
        desc: label of the progress bar.
        n_processes: maximum number of worker processes; None: one per core.

    Returns:
        The results, in the order of the jobs.
    """
    results = dict(tqdm(run_processes(jobs, n_processes), desc=desc, unit="job", total=len(jobs)))
    return [results[i] for i in range(len(jobs))]


def run_processes(jobs: Sequence[Callable[[], Result]], n_processes: int | None = None) -> Iterator[tuple[int, Result]]:
    """Run each job in a worker process; the first error ends all of them.

    Args:
        jobs: frozen dataclasses with a `__call__`, so that they can be sent to another process.
        n_processes: maximum number of worker processes; None: one per core.

    Yields:
        The index of a job and its result, as soon as it is finished.
    """
    # forking this process itself would copy its locks, and the threads of torch that hold them would not exist
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(PRELOADED)
    cores = os.cpu_count() or 1
    n_workers = min(n_processes or cores, max(1, len(jobs)))
    n_threads = max(1, cores // n_workers)
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=_start_worker, initargs=(n_threads,)) as pool:
        futures = {pool.submit(_run_pickled, pickle.dumps(job)): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], pickle.loads(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
