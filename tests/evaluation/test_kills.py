"""SIGKILL at random moments of an evaluation: finished shards survive, and the results are those of an undisturbed
run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpc_interp import Problem, Results, SoftPrompt, TriggerRule, evaluate, load_problems
from dpc_interp.errors import NonFiniteError
from dpc_interp.evaluation import jobs
from dpc_interp.execution import engine
from dpc_interp.models.hooked import HookedModel

KILLS = 25
Contents = Callable[[Path], dict[str, bytes]]
FORK = get_context("fork") if hasattr(os, "fork") else None
pytestmark = pytest.mark.skipif(FORK is None or torch.cuda.is_available(), reason="a GPU cannot be forked")


@pytest.fixture(scope="module")
def run(model: HookedModel, prompt: SoftPrompt) -> Callable[[Path], Results]:
    """An evaluation of about 60 shards, two instances each."""
    problems: list[Problem] = load_problems("story", "test", n=24, max_steps=1)

    def start(out: Path) -> Results:
        return evaluate(
            model,
            problems,
            prompt,
            ["bare", "random", "always", "dpc"],
            out,
            rule=TriggerRule("late_share", 0.5),
            max_new_tokens=8,
            shard_size=2,
            progress=False,
        )

    return start


def shards(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/*-of-*")}


def computed(folder: Path) -> Counter[str]:
    """How often the computation of each shard was completed."""
    file = folder / "timings.jsonl"
    timings = pd.read_json(file, lines=True) if file.exists() else pd.DataFrame(columns=["stage", "shard"])
    return Counter(zip(timings["stage"], timings["shard"], strict=True))


def stage_and_index(shard: str) -> tuple[str, int]:
    stage, _, name = shard.partition("/")
    return stage, int(name[:5])


@pytest.mark.parametrize(
    ("function", "n", "error"),
    [
        ("analyse", 3, NonFiniteError("overflow in float16")),
        ("generate", 16, RuntimeError("out of memory")),
        ("generate", 16, KeyboardInterrupt()),
    ],
)
def test_an_error_keeps_the_finished_shards(
    run: Callable[[Path], Results],
    tmp_path: Path,
    monkeypatch,
    contents: Contents,
    function: str,
    n: int,
    error: BaseException,
) -> None:
    original, calls = getattr(jobs, function), iter(range(1, n))

    def fails(*args: object, **options: object) -> object:
        if next(calls, None) is None:
            raise error
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, function, fails)
        with pytest.raises(type(error)) as caught:
            run(tmp_path)
    assert "\n" not in str(caught.value)
    stored, before = contents(tmp_path), computed(tmp_path)
    assert len(before) == len(shards(tmp_path)) > n - 2
    run(tmp_path)
    assert max(computed(tmp_path).values()) == 1, "nothing is computed again"
    assert contents(tmp_path).items() >= stored.items()


def child(run: Callable[[Path], Results], out: Path, log: Path, started: Event) -> None:
    """Evaluate, and write a byte for every shard whose computation starts."""
    run_job = engine.run_job

    def logged(*args: object) -> object:
        with log.open("ab") as file:
            file.write(b".")
        return run_job(*args)

    engine.run_job = logged
    started.set()
    run(out)
    os._exit(0)


def test_25_kills_change_nothing(run: Callable[[Path], Results], tmp_path: Path, contents: Contents) -> None:
    start = time.perf_counter()
    undisturbed = run(tmp_path / "undisturbed")
    seconds = time.perf_counter() - start
    expected, n_shards = contents(tmp_path / "undisturbed"), len(shards(tmp_path / "undisturbed"))
    assert n_shards > 45
    rng = random.Random(0)
    folder, n_kills, n_kills_in_folder, n_with_progress = tmp_path / "0", 0, 0, 0

    def check_completed_run() -> None:
        """The folder completed by this process equals that of the undisturbed run."""
        results = run(folder)
        assert contents(folder) == expected
        n_started = (tmp_path / f"{folder.name}.log").stat().st_size
        assert n_started <= n_shards + n_kills_in_folder, "a kill loses a shard at most"
        for name in ("instances", "summary", "triggers", "statistics"):
            pd.testing.assert_frame_equal(getattr(results, name), getattr(undisturbed, name), check_exact=True)
        n_tokens = results.timings.set_index("stage")["tokens"].to_dict()
        assert n_tokens == undisturbed.timings.set_index("stage")["tokens"].to_dict()

    while n_kills < KILLS:
        stored, before = shards(folder), computed(folder)
        started = FORK.Event()
        process = FORK.Process(target=child, args=(run, folder, tmp_path / f"{folder.name}.log", started))
        process.start()
        assert started.wait(60), "the child did not start"
        time.sleep(rng.uniform(0, 0.2) * seconds)
        process.kill()
        process.join()
        computed_now = computed(folder) - before
        assert not {stage_and_index(shard) for shard in stored} & set(computed_now), "stored shards are not recomputed"
        assert shards(folder) >= stored
        for name, data in contents(folder).items():
            assert name.startswith(".partial") or expected[name] == data, "readers only see complete files"
        n_with_progress += len(shards(folder)) > len(stored)
        if process.exitcode == -signal.SIGKILL:
            n_kills, n_kills_in_folder = n_kills + 1, n_kills_in_folder + 1
        else:  # the run finished before the kill: check it, and continue in another folder
            assert process.exitcode == 0
            check_completed_run()
            folder, n_kills_in_folder = tmp_path / str(n_kills), 0
    with (tmp_path / f"{folder.name}.log").open("ab") as log:
        log.write(b"." * (n_shards - len(shards(folder))))  # the shards that this process computes
    check_completed_run()
    assert n_with_progress >= 5, "some kills must hit a process that has stored shards"
