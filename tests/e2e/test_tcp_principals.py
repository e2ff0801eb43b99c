"""Principals in every form mean the same on TCP as on HTTP (CVE-2020-16844: suffixes once did not)."""

from __future__ import annotations

import contextlib

import pytest
from mesh import Backend, Mesh, Stream, get, policy
from tcp_way import settled

FORMS = [
    ("cluster.local/ns/demo/sa/web", True),
    ("cluster.local/ns/demo/sa/we", False),
    ("*", True),
    ("cluster.local/ns/demo/*", True),
    ("cluster.local/ns/dem*", True),
    ("cluster.local/ns/prod/*", False),
    ("*/sa/web", True),
    ("*web", True),
    ("*/ns/demo/sa/web", True),
    ("*/sa/batch", False),
    ("*/sa/*", False),
    ("cluster.local/*/sa/web", False),
]


async def end(stream: Stream, backend: Backend) -> None:
    """Take what the client says and end."""
    await stream.rest()


@pytest.mark.asyncio
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
async def test_tcp_and_http_agree(mesh: Mesh, action: str) -> None:
    opaque, http = await mesh.backend(end), await mesh.backend()
    for value, matches in FORMS:
        policies = {"a.yaml": policy("tested", f'[{{from: [{{source: {{principals: ["{value}"]}}}}]}}]', action=action)}
        if action == "DENY":
            policies["b.yaml"] = policy("others", "[{}]")
        orders = await mesh.sidecar(
            "orders",
            policies=policies,
            inbound=[
                {"port": 9000, "app": f"127.0.0.1:{opaque.port}", "protocol": "tcp"},
                {"port": 8080, "app": f"127.0.0.1:{http.port}", "protocol": "http"},
            ],
        )
        tcp_port, http_port = orders.app.bound_ports()["inbound"]
        by_http = await mesh.client(http_port)
        await by_http.send(get("/", "Connection: close"))
        status = (await by_http.message()).status
        await by_http.end()
        by_tcp = await mesh.client(tcp_port, alpn=(b"istio",))
        with contextlib.suppress(ConnectionError):
            await by_tcp.send(b"x")
            await by_tcp.end()
        await by_tcp.closed()
        [record] = [found for found in await settled(orders, count=3) if found["protocol"] == "TCP"]
        expected = "allow" if matches is (action == "ALLOW") else "deny"
        assert ("allow" if status == 200 else "deny", record["decision"]) == (expected, expected), value
        await orders.close()
