"""The engines give equal results: shards in one process, all instances at once, Ray with a worker that is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dpc_interp import (
    DPCInterpError,
    RunConfig,
    SoftPrompt,
    TriggerRule,
    ablate,
    analyse,
    drop_empty_rationales,
    evaluate,
    generate,
    load_model,
    load_problems,
    load_prompt,
)
from dpc_interp.evaluation.jobs import AnalyseShard
from dpc_interp.execution.engine import Engine, LocalEngine, ProcessEngine, process_source, run_job
from dpc_interp.execution.ray_engine import RayEngine
from dpc_interp.models.hooked import HookedModel

RULE = TriggerRule("late_share", 0.5)
OPTIONS = {"max_new_tokens": 8, "shard_size": 2, "progress": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray with two cores of this machine, already running as a user may have started it."""
    ray = pytest.importorskip("ray")
    if "DPC_INTERP_RAY" not in os.environ:
        pytest.skip("Ray has to start within 30 seconds, which it does before other tests begin: make test-ray")
    with ExitStack() as stack:
        for attempts_left in (2, 1, 0):
            try:
                stack.enter_context(RunConfig(engine="ray", n_workers=2).open_engine())
                break
            except DPCInterpError as error:  # half a minute is too little on a busy machine
                if not attempts_left or "Ray cannot be started" not in str(error):
                    raise
        assert ray.is_initialized()
        yield ray
    assert not ray.is_initialized()


def kill_a_worker(out: Path, killed: list[int]) -> None:
    """Wait until a worker has finished a shard, and kill it; the other may still be starting."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        file = out / "timings.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        workers = [json.loads(line)["worker"] for line in lines if line.endswith("\n")]
        if workers:
            killed.append(int(workers[0].rpartition("/")[2]))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.005)


def test_a_killed_worker_changes_nothing(
    cluster: Any,
    model: HookedModel,
    prompt: SoftPrompt,
    tmp_path: Path,
    contents: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems = load_problems("story", "test", n=20, max_steps=1)
    fields: dict[str, Any] = {"rule": RULE, **OPTIONS}
    methods = ["bare", "instruct", "random_prompt", "cut_off", "random", "always", "dpc"]
    local = evaluate(model, problems, prompt, methods, out=tmp_path / "local", **fields)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "ray", killed), daemon=True)
    killer.start()
    with RunConfig(engine="ray", n_workers=2).open_engine() as engine:  # one, because a worker takes long to start
        monkeypatch.setattr(RunConfig, "open_engine", lambda run: nullcontext(engine))
        on_ray = evaluate(model, problems, prompt, methods, out=tmp_path / "ray", engine="ray", n_workers=2, **fields)
        grid_on_ray = ablate(model, problems[:6], prompt, ["always"], engine="ray", n_workers=2, **OPTIONS)
        job = AnalyseShard([], prompt, "generated", "abs_of_sum", False)
        with pytest.raises(DPCInterpError) as ray_error:
            list(engine.map(model, [job]))
        monkeypatch.undo()
    killer.join()
    assert cluster.is_initialized(), "the user started it"
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    for name in ("instances", "summary", "triggers", "statistics"):
        pd.testing.assert_frame_equal(getattr(on_ray, name), getattr(local, name), check_exact=True)
    timings = pd.read_json(tmp_path / "ray" / "timings.jsonl", lines=True)
    assert not timings.duplicated(["stage", "shard"]).any(), "no finished shard is computed again"
    pids = [int(worker.rpartition("/")[2]) for worker in timings["worker"]]
    assert killed
    assert killed[0] in pids
    assert os.getpid() not in pids
    assert set(pids[-6:]) - {killed[0]}, "the other worker, or a new one, continued"

    grid = ablate(model, problems[:6], prompt, ["always"], **OPTIONS)
    pd.testing.assert_frame_equal(grid_on_ray, grid)
    with pytest.raises(DPCInterpError) as local_error:
        job(model)
    assert str(ray_error.value) == str(local_error.value)


def test_local_jobs_come_in_their_order(model: HookedModel) -> None:
    frames = [{"rows": pd.DataFrame({"k": [k]})} for k in range(3)]
    results = list(LocalEngine().map(model, [lambda _, k=k: frames[k] for k in range(3)]))
    assert [result.index for result in results] == [0, 1, 2]
    assert [result.value for result in results] == frames
    assert all(result.worker.endswith(f"/{os.getpid()}") for result in results)


def test_a_job_is_given_the_model_and_timed(model: HookedModel) -> None:
    def job(given: HookedModel) -> dict[str, pd.DataFrame]:
        assert given is model
        time.sleep(0.05)
        return {}

    assert 0.05 <= run_job(model, 3, job).seconds < 5
    assert run_job(model, 3, job).index == 3


def test_processes_load_the_model_by_its_name_and_give_the_same_frames() -> None:
    """Of the reasoner in bfloat16: the processes load it as it was loaded here."""
    model = load_model("reasoner", device="cpu", dtype="bfloat16")
    problems = load_problems("story", n=4)
    prompt = load_prompt("reasoner/story")
    runs = generate(model, problems, prompt, max_new_tokens=8, progress=False)
    jobs = [AnalyseShard(runs[k : k + 2], prompt, "generated", "abs_of_sum", False) for k in (0, 2)]
    with closing(ProcessEngine(1)) as engine:
        results = {result.index: result for result in engine.map(model, jobs)}
        again = {result.index: result.worker for result in engine.map(model, jobs)}
    assert {result.worker for result in results.values()} == set(again.values()), "the process stays"
    for index, expected in enumerate(LocalEngine().map(model, jobs)):
        assert results[index].worker != expected.worker
        for name, frame in expected.value.items():
            pd.testing.assert_frame_equal(results[index].value[name], frame, rtol=1e-4)


def test_processes_need_a_model_that_they_can_load(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match='engine="processes" loads the model in each process; load it with'):
        process_source(model)
    loaded = load_model("reasoner", device="cpu")
    assert process_source(loaded).name.endswith("reasoner")
    loaded.cfg.device = "cuda"
    with pytest.raises(DPCInterpError, match='runs on the CPU, and this model is on cuda; use engine="local"'):
        process_source(loaded)


def test_processes_refuse_weights_that_were_changed_after_loading() -> None:
    model = load_model("reasoner", device="cpu")
    model.W_E.data[0, 0] += 1
    with closing(ProcessEngine(1)) as engine, pytest.raises(DPCInterpError, match="the weights differ from those that"):
        list(engine.map(model, [AnalyseShard([], load_prompt("reasoner/story"), "generated", "abs_of_sum", False)]))


def test_all_engines_are_engines() -> None:
    assert isinstance(LocalEngine(), Engine)
    assert isinstance(ProcessEngine(), Engine)
    assert isinstance(RayEngine(None, 1), Engine)
    assert not isinstance(object(), Engine)


def test_shards_of_complete_batches_change_no_bit(model: HookedModel, prompt: SoftPrompt) -> None:
    """Two shards of an analysis have the batches that `analyse` forms of all instances."""
    problems = load_problems("story", "test", n=40, max_steps=2)
    results = evaluate(model, problems, prompt, ["pt"], rule=RULE, **OPTIONS | {"shard_size": 16})
    runs = generate(model, problems, prompt, max_new_tokens=8, progress=False)
    assert [run.text for run in results.runs] == [run.text for run in runs]
    analysis = analyse(model, drop_empty_rationales(model, runs), prompt, progress=False)
    assert len(analysis.instances) > 32, "more than two shards"
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(results.analysis, name), getattr(analysis, name), check_exact=True)
