"""How many Ray actors one driver keeps busy: `python benchmarks/ray_actors.py`, about 5 minutes and 15 GB of memory.

The actors hold the bundled model, but their jobs only sleep and return frames as large as those of a shard of the
analysis of Llama-3-8B: 64 texts of 150 tokens, 32 layers. The driver writes them to a run folder, or not. Actors wait
for the driver in the rest of the time that the jobs do not sleep.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import ray

from dpc_interp import load_model
from dpc_interp.evaluation.tables import markdown
from dpc_interp.execution.engine import Frames
from dpc_interp.execution.ray_engine import RayEngine
from dpc_interp.execution.store import RunStore

N_LAYERS, N_TEXTS, N_TOKENS, N_VIRTUAL = 32, 64, 150, 100


@dataclass(frozen=True)
class Sleep:
    """A job that computes nothing.

    Attributes:
        index: of the job.
        seconds: that it sleeps.
    """

    index: int
    seconds: float

    def __call__(self, model: Any) -> Frames:
        """Frames with the rows of `tokens`, `accumulation` and `flow`."""
        time.sleep(self.seconds)
        rng = np.random.default_rng(self.index)
        rows = {"tokens": N_TOKENS, "accumulation": N_VIRTUAL, "flow": 12}
        return {name: self._frame(rng, per_text) for name, per_text in rows.items()}

    def _frame(self, rng: np.random.Generator, per_text: int) -> pd.DataFrame:
        n = N_TEXTS * N_LAYERS * per_text
        names = np.array([f"gsm8k-{self.index}-{k}" for k in range(N_TEXTS)])
        return pd.DataFrame(
            {
                "instance": np.repeat(names, n // N_TEXTS),
                "correct": np.repeat(rng.random(N_TEXTS) < 0.5, n // N_TEXTS),
                "layer": np.tile(np.arange(N_LAYERS), n // N_LAYERS),
                "position": np.arange(n) % per_text,
                "value": rng.random(n),
                "row_share": rng.random(n),
            }
        )


def measure(engine: RayEngine, model: Any, n_actors: int, n_jobs: int, seconds: float, folder: Path | None) -> dict:
    """Run the jobs; the share of the actors' time in which they wait, and the driver's memory."""
    store, process = RunStore(folder, {}), psutil.Process()
    before, peak, ended = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    if folder is None:
        for _ in engine.map(model, [Sleep(k, seconds) for k in range(n_jobs)]):
            pass
    else:
        store.sharded("sleep", [Sleep(k, seconds) for k in range(n_jobs)], lambda jobs: engine.map(model, jobs))
    wall = time.perf_counter() - start
    ended.set()
    watcher.join()
    return {
        "actors": n_actors,
        "jobs": n_jobs,
        "a job sleeps, s": f"{seconds:g}",
        "stored": "yes" if folder else "no",
        "wall, s": f"{wall:.1f}",
        "actors wait": f"{1 - n_jobs * seconds / (n_actors * wall):.1%}",
        "driver, MiB above the start": f"{(peak[0] - before) / 2**20:.0f}",
    }


def main() -> None:
    """Measure and write benchmarks/RAY.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "RAY.md")
    parser.add_argument("--actors", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=320)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 20.0])
    args = parser.parse_args()
    model = load_model("reasoner", device="cpu")
    ray.init(num_cpus=args.actors, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = []
    with closing(RayEngine(ray, args.actors)) as engine, tempfile.TemporaryDirectory() as folder:
        list(engine.map(model, [Sleep(k, 0.0) for k in range(args.actors)]))  # the actors have started
        for seconds in args.seconds:
            n_jobs = args.jobs if seconds == args.seconds[0] else 3 * args.actors
            for stored in (None, Path(folder) / f"{seconds:g}"):
                rows.append(measure(engine, model, args.actors, n_jobs, seconds, stored))
                print(rows[-1], flush=True)
    ray.shutdown()
    args.out.write_text(
        f"# Ray actors and one driver\n\nWritten by `python benchmarks/ray_actors.py`, ray {ray.__version__}, "
        f"{psutil.cpu_count()} cores for driver and actors. Jobs sleep and return the frames of {N_TEXTS} texts of "
        f"{N_TOKENS} tokens, {N_LAYERS} layers.\n\n{markdown(pd.DataFrame(rows))}\n"
    )


if __name__ == "__main__":
    main()
