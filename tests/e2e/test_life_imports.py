"""What a running sidecar has in memory: it imports what explains, shows or fetches when somebody asks."""

from __future__ import annotations

import importlib.util
import re

import pytest
from admin_caller import ask
from mesh import Mesh, fetch_page, free_port, get

NEEDLESS = (
    "email.message",  # what HTTP clients and servers of the standard library parse heads with
    "grpc",
    "html",
    "http.client",
    "http.server",
    "importlib.metadata",
    "multiprocessing",
    "prometheus_client",
    "proxy.admin.html",
    "proxy.answers",
    "proxy.explained",
    "proxy.jwks.download",
    "proxy.policy_commands",
    "proxy.telemetry.collector",
    "proxy.workers",
    "unittest",
    "urllib.request",
    "zipfile",
)


@pytest.mark.parametrize("name", NEEDLESS)
def test_what_is_needless_exists(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


@pytest.mark.asyncio
async def test_a_sidecar_that_serves_imports_nothing_else(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # the interpreter writes every import to stderr
    admin = free_port()
    orders = await mesh.process(app=await mesh.backend(), admin={"listen": f"127.0.0.1:{admin}"})
    client = await mesh.client(orders)
    await client.send(get("/"))
    assert (await client.message()).status == 200
    imported = names(orders.output)
    assert "proxy.app" in imported
    assert imported.isdisjoint(NEEDLESS)
    assert b"istio_requests_total" in (await fetch_page(orders.health_port, "/metrics")).body
    assert "prometheus_client" in names(orders.output), "and what a scrape needs comes with the first one"
    assert (await ask(admin, "/", {"Accept": "text/html"})).status == 200
    assert "proxy.admin.html" in names(orders.output), "and what is asked for comes then"


def names(output: str) -> set[str]:
    """Find what an interpreter says it has imported."""
    return set(re.findall(r"^import time:.*\| +([\w.]+)$", output, re.M))
