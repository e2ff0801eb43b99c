"""Python's http.server as the application, called over two sidecars by Python's http.client."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator

import pytest
from http_application import content
from mesh import Mesh, free_port, get, identity, service
from programs import python_application

pytestmark = pytest.mark.debian


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with python_application(tmp_path_factory.mktemp("application"), free_port()) as port:
        yield port


def call_twice(port: int) -> list[bytes]:
    """Two calls of http.client on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        bodies = []
        for path in ("/bytes/100000", "/headers"):
            connection.request("GET", path)
            bodies.append(connection.getresponse().read())
        return bodies
    finally:
        connection.close()


@pytest.mark.asyncio
async def test_http_client_over_two_sidecars(mesh: Mesh, application: int) -> None:
    """Each sidecar is a process: the client blocks this one."""
    orders = await mesh.process("orders", app=application)
    web = await mesh.process("web", services=[service("orders", orders.port)])
    body, headers = call_twice(web.outbound_port)
    assert body == content(100_000)
    assert f"URI={identity('web')}" in dict(json.loads(headers))["x-forwarded-client-cert"]
    assert [record["response_code"] for record in await orders.records(2, kind="request")] == [200, 200]


@pytest.mark.asyncio
async def test_many_callers_at_once(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application)
    web = await mesh.sidecar("web", services=[service("orders", orders)])

    async def call(number: int) -> None:
        client = await mesh.plain_client(web)
        for turn in range(5):
            await client.send(get(f"/bytes/{number * 1_000 + turn}"))
            answer = await client.message()
            assert answer.body == content(number * 1_000 + turn)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert len(await orders.records(100, kind="request")) == 100
