"""An identity from a SPIFFE Workload API on a unix socket: taken, followed, and kept when the agent goes away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mesh import Mesh, authority, eventually, get, svid
from workload_messages import response
from workload_server import WorkloadServer

from certs.bundle import TrustBundle
from certs.testing import MemoryAuthority
from certs.workload_api import METHOD, REQUEST, SECURITY_HEADER
from proxy.enrolment.grpc_stream import CallFailed, StreamCall


def neighbour() -> MemoryAuthority:
    return authority().neighbour


def state(*accounts: str, federated: bool = False, fresh: bool = False) -> bytes:
    svids = [authority().svid("demo", account) if fresh else svid(account) for account in accounts]
    bundles = {neighbour().trust_domain: neighbour().bundle} if federated else {}
    return response([(each, authority().bundle) for each in svids], bundles)


def section(path: Path) -> dict[str, Any]:
    return {"workload_api": {"socket": f"unix://{path}"}}


@pytest.mark.asyncio
async def test_the_streamed_identity_is_served_with_and_replaced(mesh: Mesh, tmp_path: Path) -> None:
    with WorkloadServer(tmp_path / "agent.sock", state("web", "orders")) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        await eventually(lambda: orders.app.sidecar.ready)
        client = await mesh.client(orders)
        await client.send(get("/"))
        assert (await client.message()).status == 200
        tls = orders.app.sidecar.tls
        assert tls is not None
        assert tls.identity_set.spiffe_id == svid("orders").spiffe_id, "the expected one of two"
        assert [call["workload.spiffe.io"] for call in agent.calls] == ["true"]
        before = orders.app.sidecar.tls_generation
        agent.update(state("orders", fresh=True))
        await eventually(lambda: orders.app.sidecar.tls_generation > before)
        await client.send(get("/"))
        assert (await client.message()).status == 200
        assert len(agent.calls) == 1, "on the same stream"


@pytest.mark.asyncio
async def test_a_federated_bundle_that_is_no_longer_told_ends_its_domain(mesh: Mesh, tmp_path: Path) -> None:
    with WorkloadServer(tmp_path / "agent.sock", state("orders", federated=True)) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        await eventually(lambda: orders.app.sidecar.ready)
        foreign = await mesh.client(orders, certificate=neighbour().svid("demo", "partner"))
        await foreign.send(get("/"))
        assert (await foreign.message()).status == 200
        agent.update(state("orders"))
        await foreign.closed()


@pytest.mark.asyncio
async def test_an_agent_that_comes_late_or_goes_is_waited_for(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(path))
    missing = orders.app.readiness.missing
    await eventually(lambda: any("Unavailable" in sentence for sentence in missing.get("certificates", [])))
    with WorkloadServer(path, state("orders")) as agent:
        await eventually(lambda: orders.app.sidecar.ready)
        agent.break_off()
        await eventually(lambda: len(agent.calls) > 1)
    assert orders.app.sidecar.ready
    client = await mesh.client(orders)
    await client.send(get("/"))
    assert (await client.message()).status == 200, "what is held is used while nobody is there"


@pytest.mark.asyncio
async def test_a_workload_that_is_not_registered_waits_and_is_told_why(mesh: Mesh, tmp_path: Path) -> None:
    refusal = (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    with WorkloadServer(tmp_path / "agent.sock", refusal) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        missing = orders.app.readiness.missing
        sentences = await eventually(
            lambda: [words for words in missing.get("certificates", []) if "PermissionDenied" in words]
        )
        assert "no identity issued" in sentences[0]
        assert "register this workload" in sentences[0]
        agent.update(state("orders"))
        await eventually(lambda: orders.app.sidecar.ready)


@pytest.mark.asyncio
async def test_an_invalid_argument_is_final(mesh: Mesh, tmp_path: Path) -> None:
    with WorkloadServer(tmp_path / "agent.sock", (grpc.StatusCode.INVALID_ARGUMENT, "no such call")) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        missing = orders.app.readiness.missing
        await eventually(lambda: any("until a restart" in sentence for sentence in missing.get("certificates", [])))
        await eventually(lambda: "workload api" not in [thread.name for thread in threading.enumerate()])
        assert len(agent.calls) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xff", "does not end"),
        (b"", "gave no identity"),
        (response([(svid("web"), authority().bundle)]), "this workload is"),
        (response([(svid("orders"), authority().stranger.bundle)]), "no root of cluster.local"),
    ],
)
async def test_a_state_that_cannot_be_taken_changes_nothing(
    mesh: Mesh, tmp_path: Path, message: bytes, words: str
) -> None:
    with WorkloadServer(tmp_path / "agent.sock", message) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        missing = orders.app.readiness.missing
        await eventually(lambda: any(words in sentence for sentence in missing.get("certificates", [])))
        agent.update(state("orders"))
        await eventually(lambda: orders.app.sidecar.ready)
        before = orders.app.sidecar.tls
        agent.update(message)
        await eventually(lambda: len(agent.calls) >= 3)
        assert orders.app.sidecar.tls is before


@pytest.mark.asyncio
async def test_a_large_state_comes_whole(mesh: Mesh, tmp_path: Path) -> None:
    many = TrustBundle(trust_domain=neighbour().trust_domain, certificates=(neighbour().root,) * 200)
    message = response([(svid("orders"), authority().bundle)], {many.trust_domain: many})
    assert len(message) > 65_535, "more than one frame, and than the first window of a stream"
    with WorkloadServer(tmp_path / "agent.sock", message) as agent:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(agent.path))
        await eventually(lambda: orders.app.sidecar.ready)


@pytest.mark.asyncio
async def test_what_does_not_speak_http2_is_named(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    async with server:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(path))
        missing = orders.app.readiness.missing
        await eventually(lambda: any("HTTP/2" in sentence for sentence in missing.get("certificates", [])))
        await orders.close()


# --- one call --------------------------------------------------------------------------------------------------------


def call_to(path: Path, limit: int = 1 << 20) -> StreamCall:
    return StreamCall(str(path), METHOD, [SECURITY_HEADER], REQUEST, limit=limit)


@contextlib.contextmanager
def silent(path: Path) -> Iterator[None]:
    """Something that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def test_silence_is_bounded(tmp_path: Path) -> None:
    with silent(tmp_path / "agent.sock"), pytest.raises(CallFailed, match=r"^Unavailable: it was silent too long$"):
        next(call_to(tmp_path / "agent.sock").messages(lambda: 0.1))
    waits = iter([5.0, 0.1])
    with WorkloadServer(tmp_path / "agent.sock", b"state") as agent:
        messages = call_to(agent.path).messages(lambda: next(waits))
        assert next(messages) == b"state"
        with pytest.raises(CallFailed, match="silent too long"):
            next(messages)


def test_a_call_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with silent(tmp_path / "agent.sock"):
        call = call_to(tmp_path / "agent.sock")
        threading.Timer(0.1, call.abort).start()
        began = time.monotonic()
        with pytest.raises(CallFailed, match="the call was ended"):
            next(call.messages(lambda: 30.0))
        assert time.monotonic() - began < 10
        call = call_to(tmp_path / "agent.sock")
        call.abort()
        with pytest.raises(CallFailed, match="the call was ended"):
            next(call.messages(lambda: 30.0))


def test_a_message_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with WorkloadServer(tmp_path / "agent.sock", bytes(1001)) as agent:
        with pytest.raises(CallFailed, match=r"^ResourceExhausted: .*1001"):
            next(call_to(agent.path, limit=1000).messages(lambda: 5.0))
        messages = call_to(agent.path, limit=1001).messages(lambda: 5.0)
        assert next(messages) == bytes(1001)
        messages.close()


def test_a_path_is_a_path_whatever_it_holds(tmp_path: Path) -> None:
    with silent(tmp_path / "a%41 b?c#d"), pytest.raises(CallFailed, match="silent"):
        next(call_to(tmp_path / "a%41 b?c#d").messages(lambda: 0.1))
