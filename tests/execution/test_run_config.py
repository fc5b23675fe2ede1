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


def test_the_engine_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with RunConfig().open_engine() as engine:
        assert type(engine) is LocalEngine
    with RunConfig(engine="processes").open_engine() as engine:
        assert type(engine) is ProcessEngine
    with RunConfig(engine="ray").open_engine() as engine:
        assert type(engine) is RayEngine
