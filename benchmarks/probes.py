"""Asks for what policy forbids, in the middle of a load, and looks for the record of the refusal.

A run that measures a sidecar whose gate is open measures nothing. So each setup with rules is asked, in every round,
for a path (HTTP) or from an address (TCP) that its rules deny.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.configs import DENIED_PREFIX
from benchmarks.hops import LOG_SECONDS, count_lines, find_record, get
from benchmarks.plain import context
from benchmarks.policies import DENIED_SOURCE
from benchmarks.processes import BenchError
from benchmarks.tcp_load import ECHO

_PATIENCE: Final = 10.0


def denied_path(number: int) -> str:
    """Name the path that is asked for in a round."""
    return f"{DENIED_PREFIX}/round-{number}"


def expect_denied_request(entry: int, number: int) -> None:
    """Ask for a forbidden path. Raises BenchError unless the answer is 403."""
    status, _ = get(entry, denied_path(number))
    if status != 403:
        raise BenchError(f"a request for {denied_path(number)}, which policy denies, was answered {status}")


def expect_denied_connection(inbound: int, identity: Path | None) -> None:
    """Connect from a forbidden address, with mutual TLS if there is an identity. Raises BenchError if it is served."""
    if (answer := _echo(inbound, identity, DENIED_SOURCE)) != b"":
        raise BenchError(f"a connection from {DENIED_SOURCE}, which policy denies, was answered {answer!r}")


def _echo(port: int, identity: Path | None, source: str) -> bytes:
    """Say something to the echo; what came back, b"" when the connection was ended instead."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE, source_address=(source, 0)) as plain:
            sock: socket.socket = plain
            if identity is not None:
                tls = context(identity, server=False)
                # Who answers is of no interest here; that the caller is known is.
                tls.check_hostname = False
                sock = tls.wrap_socket(plain)
            sock.sendall(ECHO + b"ping")
            return sock.recv(64)
    except TimeoutError as failure:
        raise BenchError(f"a connection from {source} was neither served nor ended") from failure
    except (OSError, ssl.SSLError):
        return b""


def await_lines(log: Path, due: int, where: str) -> None:
    """Wait until a log has as many lines. Raises BenchError when they do not come: a request left no record."""
    deadline = time.monotonic() + LOG_SECONDS
    while (lines := count_lines(log)) < due:
        if time.monotonic() > deadline:
            raise BenchError(f"{where} logged {lines} of {due}")
        time.sleep(0.1)


def await_denial(log: Path, number: int, *, http: bool) -> None:
    """Wait for the record of the refusal. Raises BenchError when there is none, or when it says something else."""
    deadline = time.monotonic() + LOG_SECONDS
    look: Callable[[], dict[str, Any] | None] = (
        (lambda: find_record(log, denied_path(number))) if http else (lambda: find_source(log))
    )
    while (record := look()) is None:
        if time.monotonic() > deadline:
            raise BenchError("what was denied is not on record")
        time.sleep(0.1)
    if record.get("decision", "deny") != "deny" or (http and record.get("response_code") not in (403, "403")):
        raise BenchError(f"the record does not say that it was denied: {record}")


def find_source(log: Path) -> dict[str, Any] | None:
    """Find the record of a connection from the forbidden address in a log of JSON lines; None when there is none."""
    needle = DENIED_SOURCE.encode()
    with log.open("rb") as file:
        for line in file:
            if needle in line and line.endswith(b"\n"):
                record = json.loads(line)
                if isinstance(record, dict):
                    return record
    return None
