"""A small mesh for end-to-end tests: real sidecars, each read from a real configuration file, and the ends around them.

    async def test_something(mesh: Mesh) -> None:
        backend = await mesh.backend()                        # records every byte, answers 200
        orders = await mesh.sidecar("orders", app=backend)    # mutual TLS in, plaintext to the backend
        client = await mesh.client(orders)                    # mutual TLS, as demo/web
        await client.send(b"GET / HTTP/1.1\\r\\nHost: orders\\r\\n\\r\\n")
        assert (await client.message()).status == 200
        [record] = await orders.records(kind="request")

    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)                     # the application of `web`, which calls out

`mesh.process(...)` starts the same sidecar as a process of its own, with the same configuration. Whatever a mesh has
made is closed at its end.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from handshake_peers import TIMEOUT, authority
from mesh_backend import OK, Backend, Script, answering, keep_answering
from mesh_sidecars import (
    ROOT,
    Process,
    Records,
    Sidecar,
    accepts,
    eventually,
    fetch_page,
    free_port,
    loop_name,
)
from mesh_streams import Message, Stream, dial, tls_on

from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain
from certs.testing import write_set

__all__ = [
    "ALLOW_ALL",
    "OK",
    "ROOT",
    "TIMEOUT",
    "Backend",
    "Mesh",
    "Message",
    "Process",
    "Records",
    "Script",
    "Sidecar",
    "Stream",
    "accepts",
    "answering",
    "authority",
    "eventually",
    "fetch_page",
    "free_port",
    "get",
    "identity",
    "keep_answering",
    "loop_name",
    "policy",
    "service",
    "svid",
]


def policy(name: str, rules: str, *, action: str = "ALLOW", namespace: str = "demo") -> str:
    """An AuthorizationPolicy as YAML text; `rules` is its `rules` in flow style."""
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: {action}, rules: {rules}}}\n"
    )


ALLOW_ALL = policy("allow-all", "[{}]")


def identity(account: str, namespace: str = "demo") -> str:
    """The SPIFFE ID of a ServiceAccount."""
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


@functools.cache
def svid(account: str, namespace: str = "demo") -> Svid:
    """The certificate of a ServiceAccount, made once."""
    return authority().svid(namespace, account)


def service(name: str, *endpoints: Sidecar | Backend | int, **more: Any) -> dict[str, Any]:
    """A service of the configuration: mutual TLS to sidecars or ports, plaintext to backends."""
    ports = [item if isinstance(item, int) else item.port for item in endpoints]
    found: dict[str, Any] = {
        "name": name,
        "hosts": [name, f"{name}.demo"],
        "endpoints": [f"127.0.0.1:{port}" for port in ports],
        "protocol": "http",
    }
    if any(isinstance(item, Backend) for item in endpoints):
        found["tls"] = "none"
    else:
        found["identities"] = [identity(name)]
    return found | more


def get(target: str = "/", *lines: str, host: str = "orders", method: str = "GET", body: bytes | None = None) -> bytes:
    """A request in bytes; `lines` are further header lines, `body` goes with its Content-Length."""
    extra = [*lines] if body is None else [*lines, f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *extra, "", ""])
    return head.encode("latin-1") + (body or b"")


class Mesh:
    """Makes sidecars, backends and clients for one test, and closes them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._parts: list[Sidecar | Process | Backend] = []
        self._streams: list[Stream] = []

    async def close(self) -> None:
        """Close everything, clients first."""
        for stream in self._streams:
            stream.close()
        failures: list[BaseException] = []
        for part in reversed(self._parts):
            try:
                await part.close()
            except Exception as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    # --- parts ---

    async def backend(
        self, script: Script = keep_answering, *, receive_buffer: int = 0, send_buffer: int = 0
    ) -> Backend:
        """Start a recording backend."""
        backend = Backend(script, receive_buffer=receive_buffer, send_buffer=send_buffer)
        self._parts.append(backend)
        return backend

    async def sidecar(self, account: str = "orders", **options: Any) -> Sidecar:
        """Start a sidecar in this process; `options` as for `describe`."""
        directory, config_file, _ = self.describe(account, free=lambda: 0, **options)
        sidecar = Sidecar(directory, config_file)
        self._parts.append(sidecar)
        sidecar.app.start()
        return sidecar

    async def process(
        self, account: str = "orders", *, prepare: Callable[[], None] | None = None, ready: bool = True, **options: Any
    ) -> Process:
        """Start a sidecar as a process (`prepare` runs in it first) and wait until it is ready, unless told not to."""
        directory, config_file, ports = self.describe(account, free=free_port, **options)
        process = Process(directory, config_file, ports, prepare)
        self._parts.append(process)
        if ready:
            await process.readiness(200)
        return process

    def describe(
        self,
        account: str,
        *,
        free: Callable[[], int],
        app: Backend | int | None = None,
        protocol: str = "http",
        inbound: Sequence[Mapping[str, Any]] | None = None,
        services: Sequence[Mapping[str, Any]] = (),
        policies: str | Mapping[str, str] | None = ALLOW_ALL,
        certificate: Svid | None = None,
        bundles: Mapping[TrustDomain, TrustBundle] | None = None,
        publish: bool = True,
        default: str = "deny",
        path_normalization: str = "base",
        revoked: str = "reset",
        limits: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> tuple[Path, Path, dict[str, list[int]]]:
        """Write identity, policies and configuration of a sidecar; give its directory, the file, and the ports.

        `app` is behind its one inbound port (workload port 8080, `protocol`), `inbound` replaces that list; each of
        `services` gets a listener. `policies` is the text of one file, or file name -> text; None leaves the directory
        out, as `publish=False` leaves the identity out; `certificate` and `bundles` replace what is usual. `sections`
        replace whole sections of the configuration.
        """
        directory = self.directory / f"{account}-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        if publish:
            write_set(certificate or svid(account), bundles or authority().bundles, directory / "identity")
        if policies is not None:
            (directory / "policy").mkdir()
            files = {"policies.yaml": policies} if isinstance(policies, str) else policies
            for name, text in files.items():
                (directory / "policy" / name).write_text(text)
        if inbound is None:
            inbound = []
            if app is not None:
                where = app if isinstance(app, int) else app.port
                inbound = [{"port": 8080, "app": f"127.0.0.1:{where}", "protocol": protocol}]
        ports = {"inbound": [free() for _ in inbound], "outbound": [free() for _ in services], "pages": [free()]}
        config: dict[str, Any] = {
            "workload": {"namespace": "demo", "service_account": account, "labels": {"app": account}},
            "identity": {"files": {"directory": str(directory / "identity")}},
            "inbound": {
                "ports": [
                    {"listen": f"127.0.0.1:{number}", **item}
                    for number, item in zip(ports["inbound"], inbound, strict=True)
                ]
            },
            "outbound": {
                "listeners": [
                    {"listen": f"127.0.0.1:{number}", "service": item["name"]}
                    for number, item in zip(ports["outbound"], services, strict=True)
                ],
                "services": [dict(item) for item in services],
            },
            "policy": {
                "directory": str(directory / "policy"),
                "default": default,
                "path_normalization": path_normalization,
                "revoked": revoked,
            },
            "health": {"listen": f"127.0.0.1:{ports['pages'][0]}"},
            "telemetry": {"access_log": str(directory / "access.log")},
            "limits": dict(limits or {}),
            "runtime": {"loop": loop_name(), "watch_interval": "0.05s"},
        }
        config_file = directory / "sidecar.yaml"
        # Through JSON, so that nothing is written as an alias of something else.
        config_file.write_text(yaml.safe_dump(json.loads(json.dumps(config | sections)), sort_keys=False))
        return directory, config_file, ports

    # --- clients ---

    def hold(self, stream: Stream) -> Stream:
        """Close `stream` with the mesh."""
        self._streams.append(stream)
        return stream

    async def client(
        self,
        to: Sidecar | Process | int,
        account: str = "web",
        *,
        certificate: Svid | None = None,
        alpn: Sequence[bytes] = (b"istio-http/1.1",),
        server_name: str = "",
        receive_buffer: int = 0,
        send_buffer: int = 0,
    ) -> Stream:
        """Connect to an inbound port with mutual TLS; the handshake is done with the first bytes."""
        port = to if isinstance(to, int) else to.port
        sock = dial(port, receive_buffer=receive_buffer, send_buffer=send_buffer)
        return self.hold(tls_on(sock, certificate or svid(account), alpn=alpn, server_name=server_name))

    async def plain_client(
        self, to: Sidecar | Process | int, *, receive_buffer: int = 0, send_buffer: int = 0
    ) -> Stream:
        """Connect in plaintext: to the first outbound listener of a sidecar, or to a port."""
        port = to if isinstance(to, int) else to.outbound_port
        return self.hold(Stream(dial(port, receive_buffer=receive_buffer, send_buffer=send_buffer)))
