"""Jobs and models on Ray's actors, with a stand-in for Ray; `test_engine.py` has the run on real workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from dpc_interp import DPCInterpError, load_model
from dpc_interp.execution import ray_engine
from dpc_interp.execution.digest import model_digest
from dpc_interp.execution.engine import JobResult
from dpc_interp.execution.ray_engine import RayEngine
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import model_source

TOKENS = torch.arange(3, 23).view(2, 10)


class RayError(Exception):
    """Stands for `ray.exceptions.RayError`."""


class RayTaskError(RayError):
    """Stands for `ray.exceptions.RayTaskError`."""

    def __init__(self, cause: Exception):
        super().__init__("a long stack of the actor\nand more")
        self.cause = cause


class FakeRay:
    """One process that computes each job when its result is requested, the last submitted first."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, get: Callable[[Any], Any] = lambda future: future(), n_cpus: int = 2):
        self.get, self.n_cpus = get, n_cpus
        self.makes_workers, self.workers, self.stored = False, [], []
        self.n_alive = self.n_started = self.n_running = self.most_running = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.n_cpus)}

    def put(self, value: object) -> object:
        if isinstance(value, ray_engine.PackedWeight):
            self.stored.append(value)
        return value

    def remote(self, **options: Any) -> Callable[[type], Any]:
        return lambda cls: SimpleNamespace(options=lambda **needs: SimpleNamespace(remote=partial(self._start, cls)))

    def _start(self, cls: type, *args: Any) -> Any:
        self.n_alive += 1
        self.n_started += 1
        ready = SimpleNamespace(remote=lambda: lambda: True)
        if self.makes_workers:
            try:
                self.workers.append(cls(*args))
                ready.remote = lambda worker=self.workers[-1]: worker.has_same_weights
            except RayError as error:  # as Ray does: it is raised where the actor's answer is requested
                ready.remote = lambda error=error: lambda: raise_(error)
        return SimpleNamespace(run=SimpleNamespace(remote=self._submit), has_same_weights=ready)

    def _submit(self, index: int, job: Callable[[Any], Any]) -> Callable[[], JobResult]:
        self.n_running += 1
        self.most_running = max(self.most_running, self.n_running)
        return lambda: JobResult(index, job(None), 0.0, "host/1")

    def wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        self.n_running -= 1
        return running[-1:], running[:-1]

    def kill(self, actor: object) -> None:
        self.n_alive -= 1


def raise_(error: Exception) -> None:
    raise error


def jobs(n: int) -> list[Any]:
    return [lambda _, k=k: {"rows": pd.DataFrame({"k": [k]})} for k in range(n)]


def test_every_job_is_computed_once_by_at_most_n_workers(model: HookedModel) -> None:
    ray = FakeRay(n_cpus=8)
    engine = RayEngine(ray, 3)
    frames = {result.index: result.value["rows"] for result in engine.map(model, jobs(7))}
    assert {index: frame["k"].tolist() for index, frame in frames.items()} == {k: [k] for k in range(7)}
    assert ray.n_started == ray.most_running == 3
    list(engine.map(model, jobs(2)))
    assert ray.n_started == 3, "the actors hold the model already"
    engine.close()
    assert ray.n_alive == 0


def test_another_model_starts_other_actors(model: HookedModel, build: Callable[..., HookedModel]) -> None:
    ray = FakeRay()
    engine = RayEngine(ray, None)
    list(engine.map(model, jobs(1)))
    list(engine.map(build("plain"), jobs(5)))
    assert (ray.n_started, ray.n_alive) == (1 + 2, 2)


def test_a_jobs_own_error_is_raised_unchanged(model: HookedModel) -> None:
    cause = DPCInterpError("one line")

    def get(future: object) -> object:
        raise RayTaskError(cause)

    with pytest.raises(DPCInterpError) as caught:
        list(RayEngine(FakeRay(get), 2).map(model, jobs(1)))
    assert caught.value is cause


def test_an_actor_that_keeps_dying_is_one_line(model: HookedModel) -> None:
    def get(future: object) -> object:
        raise RayError("The actor died unexpectedly\nand this is why")

    with pytest.raises(DPCInterpError, match=r"a worker died 4 times on one job \(The actor died .*\); give") as caught:
        list(RayEngine(FakeRay(get), 2).map(model, jobs(1)))
    assert "\n" not in str(caught.value)


def test_more_workers_than_cores_are_an_error(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match=r"n_workers is 3, .* has 2$"):
        list(RayEngine(FakeRay(n_cpus=2), 3).map(model, jobs(1)))


# The model on its way to the actors


def worker_of(model: HookedModel) -> tuple[ray_engine._Worker, FakeRay]:
    """The actor of a model, and Ray."""
    ray = FakeRay()
    ray.makes_workers = True
    list(RayEngine(ray, 1).map(model, jobs(1)))
    return ray.workers[-1], ray


@pytest.fixture(params=["float32", "bfloat16"])
def loaded(request: pytest.FixtureRequest, tiny: Callable, tmp_path: Path, backend: str) -> HookedModel:
    """A model that was loaded from a folder."""
    return load_model(tiny("llama", tmp_path), device="cpu", dtype=request.param, backend=backend)


def assert_same(copy: HookedModel, model: HookedModel) -> None:
    assert copy is not model
    assert model_digest(copy) == model_digest(model)
    assert end_tokens(copy) == end_tokens(model)
    assert torch.equal(copy(TOKENS), model(TOKENS))
    for mine, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        if theirs.untyped_storage().nbytes() == theirs.nbytes:  # no part of a larger weight
            assert mine.stride() == theirs.stride(), "stored in the order in which it is read"
        assert mine.requires_grad == theirs.requires_grad


def test_a_loaded_model_is_loaded_again_by_its_name(loaded: HookedModel) -> None:
    worker, ray = worker_of(loaded)
    assert_same(worker._model, loaded)
    assert ray.n_started == 1
    assert ray.stored == [], "no weight passes through the object store"


def test_what_was_changed_at_a_loaded_model_travels(loaded: HookedModel) -> None:
    """Hooks, settings and the tokenizer are the caller's, although the weights are loaded by name."""
    loaded.add_hook("blocks.0.hook_resid_pre", half)
    loaded.tokenizer.model_max_length = 77
    try:
        worker, ray = worker_of(loaded)
        assert_same(worker._model, loaded)
        assert worker._model.tokenizer.model_max_length == 77
    finally:
        loaded.reset_hooks()
    assert ray.stored == []
    assert not torch.equal(worker._model(TOKENS), loaded(TOKENS))


def half(resid: torch.Tensor, hook: object) -> torch.Tensor:
    return resid / 2


DIFFER = "the weights differ: changed here after loading, or other files there"


@pytest.mark.parametrize(
    ("change", "reason"), [("weights", DIFFER), ("another dtype", DIFFER), ("the folder is gone", "no such folder")]
)
def test_a_model_that_is_not_that_of_its_name_any_more_is_sent_with_a_warning(
    loaded: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    if change == "weights":
        with torch.no_grad():
            next(iter(loaded.parameters())).view(-1)[3] += 1
    elif change == "another dtype":
        loaded.to(torch.float64)
    else:
        monkeypatch.setattr(ray_engine.ModelSource, "load", fail_as_an_actor_does)
    with pytest.warns(UserWarning, match="Ray actors") as warned:
        worker, ray = worker_of(loaded)
    (message,) = [str(warning.message) for warning in warned if "Ray actors" in str(warning.message)]
    assert message.startswith(f"1 of 1 Ray actors cannot load '{tmp_path}' by its name (")
    assert f"{reason}); they get the weights of the model here through Ray's object store" in message
    assert "\n" not in message
    assert_same(worker._model, loaded)
    assert ray.n_started == 2
    assert ray.n_alive == 1, "the first is stopped"
    assert len(ray.stored) == len(list(loaded.parameters()))


def test_only_the_actors_with_other_weights_are_replaced(loaded: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two machines has other files under the same name."""
    load, n_loaded = ray_engine.ModelSource.load, []

    def load_elsewhere(source: Any, device: str) -> HookedModel:
        model = load(source, device)
        n_loaded.append(1)
        if len(n_loaded) == 2:
            next(iter(model.parameters())).mul_(2)
        return model

    monkeypatch.setattr(ray_engine.ModelSource, "load", load_elsewhere)
    ray = FakeRay()
    ray.makes_workers = True
    engine = RayEngine(ray, 2)
    with pytest.warns(UserWarning, match="1 of 2 Ray actors"):
        list(engine.map(loaded, jobs(2)))
    first, other, sent = ray.workers
    assert [worker.has_same_weights() for worker in (first, other, sent)] == [True, False, True]
    assert model_digest(sent._model) == model_digest(loaded)
    assert ray.n_alive == 2


def test_a_restarted_actor_with_other_weights_computes_nothing(
    loaded: HookedModel, tiny: Callable, tmp_path: Path
) -> None:
    """Ray restarts an actor that died without asking the driver, and the files may have changed meanwhile."""
    parts = ray_engine.ModelParts(ray_engine._pickle_skeleton(loaded), model_digest(loaded))
    source = model_source(loaded)
    assert ray_engine._Worker(parts, "cpu", source).run(0, jobs(1)[0]).index == 0
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DPCInterpError, match="a restarted worker loaded other weights than before; restore"):
        ray_engine._Worker(parts, "cpu", source).run(0, jobs(1)[0])


def fail_as_an_actor_does(source: object, device: str) -> HookedModel:
    raise RayError("the actor died in its constructor\n  a stack\nDPCInterpError: no such folder")


@pytest.mark.parametrize("kind", ["gqa", "learned"])
def test_a_model_that_was_not_loaded_is_sent_weight_by_weight(build: Callable[..., HookedModel], kind: str) -> None:
    model = build(kind)
    list(model.parameters())[1].requires_grad_(True)
    worker, ray = worker_of(model)
    assert_same(worker._model, model)
    skeleton = ray_engine._pickle_skeleton(model)
    cloudpickle = pytest.importorskip("ray").cloudpickle
    assert len(skeleton) < len(cloudpickle.dumps(model)), "the weights are not in it"
    weights = list(model.parameters())
    assert all(packed.numbers.nbytes == weight.nbytes for packed, weight in zip(ray.stored, weights, strict=True))
    received = worker._model.parameters()
    for packed, weight, copy in zip(ray.stored, weights, received, strict=True):
        assert packed.numbers.ctypes.data == copy.data_ptr(), "not copied"
        if weight.untyped_storage().nbytes() == weight.nbytes:
            assert packed.numbers.ctypes.data == weight.data_ptr(), "not copied"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_of_any_layout_is_packed_in_its_order_of_storage(dtype: torch.dtype) -> None:
    weights = [torch.randn(3, 4, 5), torch.randn(3, 5, 4).mT, torch.randn(5, 3, 4).permute(1, 2, 0), torch.randn(4)]
    for weight in (weight.to(dtype) for weight in [*weights, torch.randn(()), torch.zeros(0, 3)]):
        packed = ray_engine.PackedWeight.of(weight)
        assert torch.equal(packed.unpack(), weight)
        if weight.numel():
            assert packed.unpack().stride() == weight.stride()
            assert packed.unpack().data_ptr() == weight.data_ptr()


def test_weights_that_change_on_their_way_are_an_error(build: Callable[..., HookedModel]) -> None:
    model = build("gqa")
    parts = ray_engine.ModelParts(ray_engine._pickle_skeleton(model), model_digest(model))
    weights = [ray_engine.PackedWeight.of(weight) for weight in model.parameters()]
    weights[0] = ray_engine.PackedWeight.of(torch.zeros_like(next(iter(model.parameters()))))
    with pytest.raises(DPCInterpError, match="the weights changed on their way"):
        ray_engine._Worker(parts, "cpu", None, *weights)
