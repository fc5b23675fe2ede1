"""Whether the Hub can be reached, against servers on this machine that answer, refuse or stay silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from dpc_interp import hub
from dpc_interp.hub import hub_is_reachable


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a port of this machine the Hub, and switch the offline mode of the tests off."""

    def use(port: int) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")

    return use


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server that records the requests in `methods` and answers with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.server.methods.append(self.command)
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        running.methods, running.status = [], 200
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 403, 503])
def test_any_answer_counts(server: HTTPServer, use_endpoint: Callable[[int], None], status: int) -> None:
    server.status = status
    use_endpoint(server.server_port)
    assert hub_is_reachable()
    assert server.methods == ["HEAD"]


def test_offline_sends_no_request(
    server: HTTPServer, use_endpoint: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_endpoint(server.server_port)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub_is_reachable()
    assert server.methods == []


def test_closed_port(use_endpoint: Callable[[int], None]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    use_endpoint(port)
    assert not hub_is_reachable()


def test_silent_server_times_out(use_endpoint: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use_endpoint(silent.getsockname()[1])
        start = time.monotonic()
        assert not hub_is_reachable()
    assert 0.2 <= time.monotonic() - start < 5
