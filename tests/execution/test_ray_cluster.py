"""Ray's start and end, with a stand-in for Ray: dead and malformed addresses, settings, processes that stay behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace

import pytest

from dpc_interp import DPCInterpError
from dpc_interp.execution import ray_cluster
from dpc_interp.execution.ray_cluster import connect_ray


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """The port of a server that answers every connection with these bytes; None: it accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    open_connections.append(connection)
                    if answer is not None:
                        connection.sendall(answer)

        open_connections: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in open_connections:
            connection.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The settings of each `ray.init`, of a stand-in."""

    def no_cluster(address: str, folder: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    calls: list[dict[str, object]] = []
    services = SimpleNamespace(get_ray_address_from_environment=no_cluster)
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **options: calls.append(options),
        shutdown=lambda: None,
        _private=SimpleNamespace(services=services),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.3)
    return calls


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}", "ray://localhost:{}"])
@pytest.mark.parametrize("answer", ["no server", None, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_cluster_that_is_gone_is_refused_in_seconds(
    started: list, monkeypatch: pytest.MonkeyPatch, address: str, answer: bytes | str | None
) -> None:
    with ExitStack() as stack:
        port = closed_port() if answer == "no server" else stack.enter_context(server(answer))
        monkeypatch.setenv("RAY_ADDRESS", address.format(port))
        start = time.monotonic()
        with (
            pytest.raises(DPCInterpError, match=rf"no Ray cluster answers at RAY_ADDRESS='.*{port}' \(.*\); start"),
            connect_ray(2),
        ):
            pytest.fail("it was not started")
    assert time.monotonic() - start < 2
    assert started == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000", ":6379", "ray://"])
def test_a_malformed_address_is_one_line(started: list, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(DPCInterpError, match="give host:port, ray://host:port or auto"), connect_ray(2):
        pytest.fail("it was not started")
    assert started == []


def test_auto_without_a_cluster_is_one_line(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(DPCInterpError, match="'auto', but this machine runs no Ray cluster"), connect_ray(2):
        pytest.fail("it was not started")
    assert started == []


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "plugin://anything"])
def test_a_cluster_that_answers_is_joined(started: list, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as port:
        monkeypatch.setenv("RAY_ADDRESS", address.format(port))
        with connect_ray(2):
            assert started == [{"log_to_driver": False, "logging_level": "ERROR"}]


@pytest.mark.parametrize("address", ["", "local", " "])
def test_an_empty_address_starts_a_cluster_here(started: list, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with connect_ray(2):
        assert started[0]["num_cpus"] == 2
        assert started[0]["address"] == "local"


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_is_started_without_dashboard_and_statistics(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """A cluster at RAY_ADDRESS is joined with its own settings."""
    settings: dict[str, object] = {}
    events: list[str] = []

    def init(**options: object) -> None:
        events.append("start")
        settings.update(options)

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: events.append("shut down"))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_check_address", lambda ray, address: None)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with connect_ray(2):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        events.append("use")
    assert events == ["start", "use", "shut down"]
    assert settings.get("include_dashboard") is (None if address else False)
    assert settings.get("num_cpus") == (None if address else 2)


def test_the_users_own_ray_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        pytest.fail("it belongs to the user")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, init=fail, shutdown=fail))
    with connect_ray(2):
        pass


def test_a_failed_start_is_one_line_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[subprocess.Popen] = []

    def init(**options: object) -> None:
        servers.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        raise Exception("The current node timed out\nduring startup.")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(
            DPCInterpError, match=r"Ray cannot be started \(The current node timed out\); try again"
        ) as caught,
        connect_ray(2),
    ):
        pytest.fail("it was not started")
    assert "\n" not in str(caught.value)
    assert servers[0].poll() is not None
