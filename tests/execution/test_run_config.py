"""`RunConfig` raises errors before any work and opens the engine that it names."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dpc_interp import DPCInterpError, RunConfig
from dpc_interp.execution.engine import LocalEngine, ProcessEngine
from dpc_interp.execution.ray_engine import RayEngine


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; give at least 1"),
        ({"shard_size": 0}, "shard_size is 0; give at least 1"),
        ({"engine": "dask"}, "unknown engine 'dask'; known: local, processes, ray"),
        ({"n_workers": 2}, 'n_workers counts processes or Ray actors; give engine="processes"'),
        ({"engine": "ray", "n_workers": 0}, "n_workers is 0; give at least 1"),
    ],
)
def test_invalid_fields_are_errors(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DPCInterpError, match=message):
        RunConfig(**fields)
    with pytest.raises(DPCInterpError, match=message):
        replace(RunConfig(), **fields)


def test_a_missing_ray_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DPCInterpError, match=r'pip install "dpc_interp\[ray\]"'):
        RunConfig(engine="ray")


def test_workers_are_one_a_core_or_a_gpu_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("dpc_interp.execution.run_config.n_cores", lambda: 5)
    assert RunConfig().count_workers("cuda") == 1
    assert RunConfig(engine="processes").count_workers("cpu") == 5
    assert RunConfig(engine="ray").count_workers("cpu") == 5
    assert RunConfig(engine="ray").count_workers("cuda:0") == 3
    assert RunConfig(engine="ray", n_workers=8).count_workers("cuda") == 8


def test_the_engine_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with RunConfig().open_engine() as engine:
        assert type(engine) is LocalEngine
    with RunConfig(engine="processes").open_engine() as engine:
        assert type(engine) is ProcessEngine
    with RunConfig(engine="ray").open_engine() as engine:
        assert type(engine) is RayEngine
