"""The gate's table through real sockets: every raw input gets its answer, and no backend sees what was not judged.

The same inputs come in over mutual TLS (a peer's requests) and in plaintext (the application's own), before a backend
that records every byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from mesh import Backend, Mesh, Message, Sidecar, Stream, service

from tests.gate_corpus import Forwarded, GateCase, load_gate_corpus

CASES = load_gate_corpus()
OF_A_MESH = (b"x-envoy-", b"x-istio-", b"l5d-", b"x-forwarded-client-cert")


async def drive(
    case: GateCase, client: Stream, backend: Backend, *, from_peer: bool
) -> tuple[list[str], list[tuple[str, str]]]:
    """Send one input; give what was wrong, and (decision, reason) of the records to expect."""
    wrong: list[str] = []
    requests, received = len(backend.requests), len(backend.received)
    await client.send(case.raw)
    if case.half_close:
        await client.end()
    method = case.raw.lstrip(b"\r\n").partition(b" ")[0]
    answer = await client.final(to=method)
    if answer.status != case.status:
        wrong.append(f"answered {answer.status}: {answer.body!r}")
    expected = [("allow" if case.head_is_accepted else "none", case.reason or "ok")]
    if case.then_status:
        expected.append(("none", case.then_reason))
        if (second := await client.final()).status != case.then_status:
            wrong.append(f"answered {second.status} to what followed")
    if case.status != 200 or case.then_status:
        if (end := await client.closed()) != "clean" or client.unread:
            wrong.append(f"the connection went on: {end} {client.unread!r}")
        if case.status != 200 and answer.get("connection") != b"close":
            wrong.append("the answer does not announce the end")
    taken = backend.requests[requests:]
    if case.forwarded is None:
        if taken:
            wrong.append(f"the backend took {taken}")
        if not case.head_is_accepted and len(backend.received) != received:
            wrong.append(f"the backend received {backend.received[received:]!r}")
    elif len(taken) != 1:
        wrong.append(f"the backend took {len(taken)} requests")
    else:
        wrong += differences(case.forwarded, taken[0], from_peer=from_peer)
    return wrong, expected


def differences(forwarded: Forwarded, seen: Message, *, from_peer: bool) -> list[str]:
    """Say in what a request at the backend differs from what the table promises."""
    framing = "chunked" if seen.get("transfer-encoding") else "length" if seen.get("content-length") else "none"
    pairs = [
        ("method", seen.method, forwarded.method),
        ("target", seen.target, forwarded.target),
        ("version", seen.line.split(b" ")[2], b"HTTP/1.1"),
        ("authority", seen.get("host"), forwarded.authority),
        ("framing", framing, forwarded.framing),
        ("body", seen.body, forwarded.body),
    ]
    wrong = [f"{name}: {found!r}, not {promised!r}" for name, found, promised in pairs if found != promised]
    wrong += [f"lacks {item}" for item in forwarded.has if item not in seen.headers]
    names = {name for name, _ in seen.headers}
    for name in forwarded.lacks:
        ours = name == b"x-forwarded-client-cert" and from_peer
        kept = not from_peer and name.startswith(OF_A_MESH)
        if name in names and not ours and not kept:
            wrong.append(f"has {name!r}")
    return wrong


async def run_table(
    connect: Callable[[], Awaitable[Stream]], backend: Backend, sidecar: Sidecar, *, from_peer: bool
) -> None:
    faults: list[str] = []
    expected: list[tuple[str, str, str]] = []
    for case in CASES:
        client = await connect()
        try:
            wrong, records = await drive(case, client, backend, from_peer=from_peer)
        except (EOFError, ConnectionError, TimeoutError, AssertionError) as failure:
            wrong, records = [f"{type(failure).__name__}: {failure}"], []
        client.close()
        faults += [f"{case.name}: {sentence}" for sentence in wrong]
        expected += [(case.name, *record) for record in records]
    assert not faults, "\n".join(faults)
    found = await sidecar.records(len(expected), kind="request")
    for (name, decision, reason), record in zip(expected, found, strict=True):
        assert record["reason"] == reason, (name, record)
        # Outbound it is the server's identity that permits: a body at fault may end a request before there is one.
        decisions = (decision,) if from_peer or reason == "ok" else (decision, "none")
        assert record["decision"] in decisions, (name, record)


@pytest.mark.asyncio
async def test_requests_of_peers(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    await run_table(lambda: mesh.client(orders), backend, orders, from_peer=True)


@pytest.mark.asyncio
async def test_requests_of_the_application(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", backend)])
    await run_table(lambda: mesh.plain_client(web), backend, web, from_peer=False)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 120
