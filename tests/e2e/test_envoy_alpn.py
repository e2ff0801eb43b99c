"""What we agree on with servers and clients that name ALPN otherwise than Istio's defaults do."""

from __future__ import annotations

import pytest
from envoy_sidecar import agreed_names, envoy_before, envoy_calling
from mesh import Mesh, get, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


@pytest.mark.parametrize(
    ("answers", "agreed"),
    [
        (("istio-http/1.1", "istio-http/1.0"), b"istio-http/1.1"),
        (("istio-h2", "istio-http/1.1"), b"istio-http/1.1"),
        (("h2",), b""),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
async def test_a_server_of_http(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], agreed: bytes
) -> None:
    names = agreed_names(monkeypatch)
    async with envoy_before(mesh, await mesh.backend(), answer_http=answers) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        client = await mesh.plain_client(web)
        await client.send(get("/orders"))
        assert (await client.message()).status == 200
    assert names == [agreed]


async def test_a_server_of_opaque_bytes_that_names_istio(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    names = agreed_names(monkeypatch)
    async with envoy_before(mesh, await mesh.backend(), answer_tcp=("istio",)) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port, protocol="tcp")])
        client = await mesh.plain_client(web)
        await client.send(get("/any/path"))
        assert (await client.message()).status == 200
        assert (await envoy.counters())["http.inbound_0.0.0.0_8080.downstream_cx_total"] == 0
    assert names == [b"istio"]


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (("istio-http/1.0", "istio", "http/1.0"), b"istio-http/1.0"),
        (("istio-peer-exchange", "istio"), b"istio"),
        (("istio-h2", "istio-http/1.1"), b"istio-http/1.1"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
async def test_a_client_of_http(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, offer: tuple[str, ...], agreed: bytes
) -> None:
    names = agreed_names(monkeypatch)
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    async with envoy_calling(mesh, orders, offer=offer) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders"))
        assert (await client.message()).status == 200
    assert names == [agreed]


async def test_a_client_that_offers_nothing_that_we_speak(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    async with envoy_calling(mesh, orders, offer=("istio-h2", "h2")) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders"))
        assert (await client.message()).status == 503
        [theirs] = await envoy.records()
    assert "NO_APPLICATION_PROTOCOL" in theirs["upstream_transport_failure_reason"]
    [ours] = await orders.records()
    assert ours["reason"] == "alpn_unknown"
    assert backend.streams == []
