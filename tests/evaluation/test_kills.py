"""SIGKILL at random moments of an evaluation: what was finished stays, and the end is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpc_interp import Problem, Results, SoftPrompt, TriggerRule, evaluate, load_problems
from dpc_interp.errors import NonFiniteError
from dpc_interp.evaluation import engine, jobs
from dpc_interp.lm.hooked import HookedModel

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
            ["base", "random", "always", "dpc"],
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
    """How often each shard was computed to its end."""
    file = folder / "timings.jsonl"
    told = pd.read_json(file, lines=True) if file.exists() else pd.DataFrame(columns=["stage", "shard"])
    return Counter(zip(told["stage"], told["shard"], strict=True))


def named(shard: str) -> tuple[str, int]:
    stage, _, name = shard.partition("/")
    return stage, int(name[:5])


@pytest.mark.parametrize(
    "error", [NonFiniteError("overflow in float16"), RuntimeError("out of memory"), KeyboardInterrupt()]
)
@pytest.mark.parametrize(("what", "n"), [("analyse", 3), ("generate", 16)])
def test_an_error_keeps_the_finished_shards(
    run: Callable[[Path], Results],
    tmp_path: Path,
    monkeypatch,
    contents: Contents,
    error: BaseException,
    what: str,
    n: int,
) -> None:
    function, calls = getattr(jobs, what), iter(range(1, n))

    def fails(*args: object, **options: object) -> object:
        if next(calls, None) is None:
            raise error
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, what, fails)
        with pytest.raises(type(error)) as caught:
            run(tmp_path)
    assert "\n" not in str(caught.value)
    stored, before = contents(tmp_path), computed(tmp_path)
    assert len(before) == len(shards(tmp_path)) > n - 2
    run(tmp_path)
    assert max(computed(tmp_path).values()) == 1, "nothing is computed again"
    assert contents(tmp_path).items() >= stored.items()


def child(run: Callable[[Path], Results], out: Path, log: Path, begun: object) -> None:
    """Evaluate, and write a byte for every shard whose computation begins."""
    made = engine._done

    def logged(*args: object) -> object:
        with log.open("ab") as file:
            file.write(b".")
        return made(*args)

    engine._done = logged
    begun.set()
    run(out)
    os._exit(0)


def test_25_kills_change_nothing(run: Callable[[Path], Results], tmp_path: Path, contents: Contents) -> None:
    start = time.perf_counter()
    whole = run(tmp_path / "undisturbed")
    seconds = time.perf_counter() - start
    expected, n_shards = contents(tmp_path / "undisturbed"), len(shards(tmp_path / "undisturbed"))
    assert n_shards > 45
    rng = random.Random(0)
    folder, landed, of_folder, moved = tmp_path / "0", 0, 0, 0

    def finished() -> None:
        """What the last of the lives leaves is the undisturbed run."""
        found = run(folder)
        assert contents(folder) == expected
        assert (tmp_path / f"{folder.name}.log").stat().st_size <= n_shards + of_folder, "a kill loses a shard at most"
        for name in ("instances", "summary", "triggers", "statistics"):
            pd.testing.assert_frame_equal(getattr(found, name), getattr(whole, name), check_exact=True)
        told = found.timings.set_index("stage")["tokens"].to_dict()
        assert told == whole.timings.set_index("stage")["tokens"].to_dict()

    while landed < KILLS:
        stored, before = shards(folder), computed(folder)
        begun = FORK.Event()
        process = FORK.Process(target=child, args=(run, folder, tmp_path / f"{folder.name}.log", begun))
        process.start()
        begun.wait()
        time.sleep(rng.uniform(0, 0.2) * seconds)
        process.kill()
        process.join()
        made_now = computed(folder) - before
        assert not {named(shard) for shard in stored} & set(made_now), "what is stored is not computed again"
        assert shards(folder) >= stored
        for name, data in contents(folder).items():
            assert name.startswith(".partial") or expected[name] == data, "readers see whole files alone"
        moved += len(shards(folder)) > len(stored)
        if process.exitcode == -signal.SIGKILL:
            landed, of_folder = landed + 1, of_folder + 1
        else:  # it was finished sooner: check it, and kill the rest of the times in another
            assert process.exitcode == 0
            finished()
            folder, of_folder = tmp_path / str(landed), 0
    with (tmp_path / f"{folder.name}.log").open("ab") as log:
        log.write(b"." * (n_shards - len(shards(folder))))  # by the last life, which is this process
    finished()
    assert moved >= 5, "or no kill would have landed where shards were being finished"
