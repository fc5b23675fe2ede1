"""Start Ray here, or connect to the cluster at `RAY_ADDRESS`; every failure is one line and comes within seconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psutil

from dpc_interp.errors import DPCInterpError

CONNECT_SECONDS = 5.0
"""Seconds after which an address counts as dead."""
CLIENT_PORT = 10001
"""Port of `ray://host` without one."""


def import_ray() -> Any:
    """Import Ray, with its usage statistics turned off.

    Raises:
        DPCInterpError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DPCInterpError('Ray is not installed; run pip install "dpc_interp[ray]"') from error
    return ray


@contextmanager
def connect_ray(n_cores: int | None) -> Iterator[Any]:
    """Ray as it is initialised, else connected to the cluster at `RAY_ADDRESS`, else started on this machine.

    A connection or cluster that was made here is shut down at the end.

    Args:
        n_cores: of a Ray that is started here; None: all.

    Yields:
        The module `ray`.

    Raises:
        DPCInterpError: Ray is not installed or cannot be started, or no cluster answers at `RAY_ADDRESS`.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    _start_ray(ray, n_cores)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start_ray(ray: Any, n_cores: int | None) -> None:
    """Connect to the cluster at `RAY_ADDRESS`, or start one on this machine without its dashboard."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    connects = address not in ("", "local")
    if connects:
        _check_address(ray, address)
    # "local": without an address Ray would connect to any cluster of this machine, and wait for one that has died
    settings = {} if connects else {"address": "local", "num_cpus": n_cores, "include_dashboard": False}
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    except Exception as error:  # Ray raises bare exceptions here
        ray.shutdown()
        _kill(set(psutil.Process().children(recursive=True)) - before)
        reason = str(error).partition("\n")[0].partition(". ")[0][:120]
        raise DPCInterpError(f"Ray cannot be started ({reason}); try again, or call ray.init yourself first") from error


def _check_address(ray: Any, address: str) -> None:
    """Check that a Ray server answers at `RAY_ADDRESS`; Ray itself would try for minutes.

    Raises:
        DPCInterpError: no server answers within `CONNECT_SECONDS`, or the address is malformed.
    """
    fix = "start that cluster, or unset RAY_ADDRESS to run on this machine"
    scheme, separator, location = address.rpartition("://")
    if separator and scheme != "ray":
        return  # of a plug-in, which knows what it means
    if address == "auto":
        try:
            location = ray._private.services.get_ray_address_from_environment("auto", None)
        except ConnectionError as error:
            raise DPCInterpError(f"RAY_ADDRESS is 'auto', but this machine runs no Ray cluster; {fix}") from error
    try:
        parsed = urlsplit(f"//{location}")
        host, port = parsed.hostname, parsed.port or (CLIENT_PORT if separator else None)
    except ValueError:  # the port is not a number from 0 to 65535
        host = port = None
    if not host or port is None:
        raise DPCInterpError(f"RAY_ADDRESS is {address!r}; give host:port, ray://host:port or auto")
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
            connection.settimeout(CONNECT_SECONDS)
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                # Ray's servers speak HTTP/2: both sides begin with a frame of settings, whose type is 4
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                if connection.recv(9)[3:4] != b"\x04":
                    raise OSError("what answers is no Ray server")
    except OSError as error:
        reason = str(error).partition("\n")[0][:80] or type(error).__name__
        raise DPCInterpError(f"no Ray cluster answers at RAY_ADDRESS={address!r} ({reason}); {fix}") from error


def _kill(processes: Collection[psutil.Process]) -> None:
    """Kill the servers that a failed start leaves running; they would hold the cores of the next one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
