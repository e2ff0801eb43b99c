"""Identities from a real SPIRE agent: taken, renewed, ended with their entry, and used while the agent restarts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mesh import Mesh, Process, Sidecar, authority, eventually, get, loop_name, service
from spire_process import TTL, Spire

from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain

pytestmark = [pytest.mark.debian, pytest.mark.timeout(120)]
LONG = 3.0 * TTL
"""Seconds for what comes with the end of a certificate."""


@pytest.fixture(scope="module")
def spire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spire]:
    with Spire(tmp_path_factory.mktemp("spire")) as running:
        yield running


@pytest.fixture(autouse=True)
def _forgets(spire: Spire) -> Iterator[None]:
    """Strike at the end what a test has entered."""
    yield
    spire.strike()


def section(spire: Spire) -> dict[str, Any]:
    return {"workload_api": {"socket": f"unix://{spire.socket}"}}


async def started(mesh: Mesh, spire: Spire, account: str, **options: Any) -> Sidecar:
    made = await mesh.sidecar(account, publish=False, identity=section(spire), **options)
    await eventually(lambda: made.app.sidecar.ready, lambda: made.app.readiness.missing, LONG)
    return made


def told(standing: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(standing.get("certificates", ()))


def serial(sidecar: Sidecar) -> int:
    tls = sidecar.app.sidecar.tls
    assert tls is not None
    return tls.identity_set.chain[0].serial_number


async def ask(mesh: Mesh, web: Sidecar | Process) -> int:
    client = await mesh.plain_client(web)
    try:
        await client.send(get("/"))
        return (await client.message()).status
    finally:
        client.close()


@pytest.mark.asyncio
async def test_two_sidecars_speak_by_their_identities_and_by_each_that_follows(mesh: Mesh, spire: Spire) -> None:
    for account in ("web", "orders"):
        spire.enter(account)
    orders = await started(mesh, spire, "orders", app=await mesh.backend())
    web = await started(mesh, spire, "web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    seen: set[tuple[int, int]] = set()
    deadline = time.monotonic() + LONG
    # Two renewals of each; requests all the while, none of which may fail.
    while len({one for one, _ in seen}) < 3 or len({other for _, other in seen}) < 3:
        assert time.monotonic() < deadline, seen
        await client.send(get("/"))
        assert (await client.message()).status == 200
        assert await ask(mesh, web) == 200
        seen.add((serial(orders), serial(web)))
        await asyncio.sleep(0.02)


@pytest.mark.timeout(450)
@pytest.mark.asyncio
async def test_a_struck_entry_counts_when_the_certificate_ends(mesh: Mesh, spire: Spire) -> None:
    entry = spire.enter("orders")
    spire.enter("web")
    orders = await started(mesh, spire, "orders", app=await mesh.backend())
    web = await started(mesh, spire, "web", services=[service("orders", orders)])
    spire.strike(entry)
    readiness = orders.app.readiness
    held = serial(orders)
    # Nothing is told of `orders` any more: what is held stays until it ends, and then nobody is served with it.
    sentence = await eventually(lambda: told(readiness.rejected), "the agent's word in the readiness", LONG)
    assert "no identity issued" in sentence or "this workload is" in sentence
    assert await ask(mesh, web) == 200
    sentence = await eventually(lambda: told(readiness.missing), "the end of the certificate", LONG)
    assert "has ended" in sentence
    assert await ask(mesh, web) == 503
    spire.enter("orders")
    # It asks again after a wait, which has grown meanwhile to 150 s at most; the agent may hear of it too late for one.
    await eventually(lambda: orders.app.sidecar.ready and serial(orders) != held, lambda: readiness.missing, 330.0)
    deadline = time.monotonic() + LONG
    while await ask(mesh, web) != 200:  # who was refused is left alone for a while
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


@pytest.mark.asyncio
async def test_an_agent_that_restarts_disturbs_nobody(mesh: Mesh, tmp_path: Path) -> None:
    with Spire(tmp_path) as spire:
        for account in ("web", "orders"):
            spire.enter(account)
        orders = await started(mesh, spire, "orders", app=await mesh.backend())
        web = await started(mesh, spire, "web", services=[service("orders", orders)])
        spire.stop_agent()
        assert await ask(mesh, web) == 200
        before = serial(orders), serial(web)
        spire.start_agent()
        deadline = time.monotonic() + LONG
        while before[0] == serial(orders) or before[1] == serial(web):
            assert time.monotonic() < deadline
            assert await ask(mesh, web) == 200


@pytest.mark.asyncio
async def test_another_domain_counts_until_its_bundle_is_empty(mesh: Mesh, spire: Spire) -> None:
    other = authority().neighbour
    spire.federate(TrustBundle(trust_domain=other.trust_domain, certificates=(other.root,), sequence=1))
    spire.enter("orders", other.trust_domain)
    orders = await started(mesh, spire, "orders", app=await mesh.backend())
    await eventually(lambda: vouches_for(orders, other.trust_domain), "the bundle of the other domain", LONG)
    spire.federate(TrustBundle(trust_domain=other.trust_domain, certificates=(), sequence=2))
    await eventually(lambda: not vouches_for(orders, other.trust_domain), "its end", LONG)
    assert orders.app.sidecar.ready


def vouches_for(sidecar: Sidecar, domain: TrustDomain) -> bool:
    tls = sidecar.app.sidecar.tls
    assert tls is not None
    bundle = tls.identity_set.bundles.get(domain)
    return bundle is not None and bool(bundle.certificates)


@pytest.mark.asyncio
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_says_nothing_of_grpc_and_ends(mesh: Mesh, spire: Spire, workers: int) -> None:
    spire.enter("web")
    web = await mesh.process(
        "web",
        publish=False,
        identity=section(spire),
        runtime={"loop": loop_name(), "watch_interval": "0.05s", "workers": workers},
    )
    web.signal(signal.SIGTERM)
    assert await web.ended() == 0
    lines = [line for line in web.output.splitlines() if "remora" not in line]
    assert lines == []
