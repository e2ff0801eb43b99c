"""The rotation drill: all keys of two trust domains are replaced under load, and nobody notices but who must not pass.

    client --> web --> orders        of cluster.local, whose authority replaces everything, and lets old roots go
              +--> stock         of partner.example, another authority; each domain follows the other's bundle

Certificates live for a minute, the shortest that an authority grants, so an old root goes a minute after the last
certificate of it: that minute is most of what this test takes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from drill_mesh import Domain, Load, Prober, asks, calling, metric, passes, presented_by
from mesh import Mesh, Message, Process, service

from certs.authority import Svid
from certs.keys import PrivateKey
from certs.testing import MemoryAuthority

LEAVES, INTERMEDIATES, ROOTS = 100, 10, 3
STEP, OLD_ROOTS_GO = 45.0, 90.0
"""Seconds that one step of a rotation may take, and that the old roots have to be gone in."""


@pytest_asyncio.fixture
async def domains(tmp_path: Path) -> AsyncIterator[tuple[Domain, Domain]]:
    home, abroad = Domain(tmp_path / "home", "cluster.local"), Domain(tmp_path / "away", "partner.example")
    try:
        await asyncio.to_thread(home.begin, "--lifetime", "1m", "--own-lifetime", "1m")
        await asyncio.to_thread(abroad.begin, "--lifetime", "75s", "--own-lifetime", "1m", "--max-lifetime", "10m")
        yield home, abroad
    finally:
        home.stop()
        abroad.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """The three; `shown` is every certificate of `web`, by its hash, that came with a request of the load."""

    orders: Process
    stock: Process
    web: Process
    shown: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Process]:
        yield from (self.orders, self.stock, self.web)


async def comes_true(check: Callable[[], Awaitable[object]], what: str, seconds: float = STEP) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"it did not come true within {seconds:g} s: {what}"
        await asyncio.sleep(0.2)


async def status(domain: Domain) -> str:
    return await asyncio.to_thread(domain.ask_control, "status")


async def rotate(domain: Domain, what: str, serving: Process) -> list[str]:
    """Replace a root or an intermediate until `serving` shows a certificate of it; what `status` said meanwhile."""
    before = domain.state.active.name
    said = [await asyncio.to_thread(domain.order, f"rotate {what}")]

    async def is_used() -> bool:
        said.append(await status(domain))
        return "no rotation is under way" in said[-1] and domain.state.active.name != before

    await comes_true(is_used, f"the new {what} of {domain.trust_domain} is used")
    signer = domain.certificate(domain.state.active.name)

    async def is_shown() -> bool:
        return await presented_by(serving.port) == signer

    await comes_true(is_shown, f"a certificate of the new {what} is shown")
    return said


async def revoke(domain: Domain, *words: str) -> int:
    """Revoke; the sequence of the list that says so."""
    said = await asyncio.to_thread(domain.order, "revoke", *words)
    found = re.search(r"stands in revocation list (\d+)", said)
    assert found is not None, said
    return int(found[1])


async def list_reaches(sidecar: Process, domain: Domain, sequence: int) -> None:
    name = f'remora_revocation_list_sequence{{trust_domain="{domain.trust_domain}"}}'

    async def has_it() -> bool:
        return await metric(sidecar.health_port, name) >= sequence

    await comes_true(has_it, f"revocation list {sequence} is in force")


def always(svid: Svid) -> Callable[[], Svid]:
    return lambda: svid


def forges(signer: Domain, named: Domain, account: str, key: PrivateKey | None = None) -> Callable[[], Svid]:
    """Make a certificate of a name of one domain by what signs in another, or the same, at that time."""
    return lambda: signer.stolen().forge(named.name(account), key)


async def begin_sidecars(mesh: Mesh, home: Domain, abroad: Domain) -> Sidecars:
    """Start the three, each at its own authority and following the other's bundle."""
    shown: set[str] = set()

    def answer(request: Message) -> bytes:
        found = re.search(rb"Hash=([0-9a-f]{64})", request.get("x-forwarded-client-cert") or b"")
        if request.method == b"POST" and found is not None:
            shown.add(found[1].decode())
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    backends = [await mesh.backend(), await mesh.backend()]
    for backend in backends:
        backend.answer = answer
    at_home: dict[str, Any] = {"publish": False, "federation": abroad.federated(), "ready": False}
    orders = await mesh.process("orders", app=backends[0], identity=home.section("orders"), **at_home)
    stock = await mesh.process(
        "stock",
        app=backends[1],
        publish=False,
        trust_domain=abroad.trust_domain,
        identity=abroad.section("stock"),
        federation=home.federated(),
        runtime={"loop": "asyncio", "watch_interval": "0.05s"},
        ready=False,
    )
    services = [service("orders", orders.port), service("stock", stock.port, identities=[abroad.name("stock")])]
    web = await mesh.process("web", services=services, identity=home.section("web"), **at_home)
    sidecars = Sidecars(orders=orders, stock=stock, web=web, shown=shown)
    await asyncio.gather(*(sidecar.readiness(200) for sidecar in sidecars))
    return sidecars


@pytest.mark.asyncio(loop_factories=["uvloop"])  # the sidecars at home run on uvloop, the one abroad on asyncio
@pytest.mark.timeout(240)
async def test_everything_rotates_under_load_and_nobody_passes_who_must_not(
    mesh: Mesh, domains: tuple[Domain, Domain]
) -> None:
    home, abroad = domains
    # Who is going to be revoked: by the identity, by the key, by the serial of a certificate that outlives this test.
    mallory = await asyncio.to_thread(home.enrol, token=home.token("mallory"), bundle_sequence=1, instance="m")
    trudy = await asyncio.to_thread(home.enrol, token=home.token("trudy"), bundle_sequence=1, instance="t")
    oscar = await asyncio.to_thread(
        abroad.enrol, token=abroad.token("oscar"), lifetime_seconds=600, bundle_sequence=1, instance="o"
    )
    sidecars = await begin_sidecars(mesh, home, abroad)
    orders, stock, web = sidecars
    forged, third = home.stolen().forge(home.name("web")), MemoryAuthority("third.example")

    async with Load() as load, Prober() as prober:
        # --- who tries to pass ---
        of_first_root = [
            prober.try_to_pass("one of the first root, at orders", orders.port, always(forged), forbidden=False),
            prober.try_to_pass("one of the first root, at stock", stock.port, always(forged), forbidden=False),
        ]
        revoked = [
            prober.try_to_pass("the revoked mallory", orders.port, always(mallory), forbidden=False),
            prober.try_to_pass("the revoked trudy", orders.port, always(trudy), forbidden=False),
            prober.try_to_pass("the revoked oscar", stock.port, always(oscar), forbidden=False),
        ]
        # A name that nobody revoked, of the newest key of its own domain, is let in all the time: so what is refused
        # below is not refused for being made here.
        lawful = [
            prober.try_to_pass("the newest key, at orders", orders.port, forges(home, home, "web"), forbidden=False),
            prober.try_to_pass("the newest key, at stock", stock.port, forges(home, home, "web"), forbidden=False),
        ]
        prober.try_to_pass("home's name of abroad's keys", orders.port, forges(abroad, home, "web"))
        prober.try_to_pass("abroad's name of home's keys", stock.port, forges(home, abroad, "stock"))
        prober.try_to_pass("a third domain at home", orders.port, always(third.svid("demo", "web")))
        prober.try_to_pass("a third domain abroad", stock.port, always(third.svid("demo", "web")))

        async def whoever_may_passes() -> bool:
            return all(probe.passed for probe in (*lawful, *revoked, *of_first_root))

        await comes_true(whoever_may_passes, "whoever may pass does")
        standing = mesh.hold(calling(orders.port, mallory))
        assert (await asks(standing)).status == 200
        for port, host in zip(web.ports["outbound"], ("orders", "stock"), strict=True):
            load.keep(asking=port, host=host)

        def all_is_well() -> None:
            assert load.failures == []
            assert prober.passed == {}

        # --- everything at once ---
        async def revoke_them() -> None:
            await revoke(home, "--identity", home.name("mallory"))
            key = next(line["key_fingerprint"] for line in home.audit() if line["identity"] == home.name("trudy"))
            sequence = await revoke(home, "--key", key)
            await list_reaches(orders, home, sequence)
            await list_reaches(stock, abroad, await revoke(abroad, "--serial", f"{oscar.leaf.serial_number:x}"))
            for probe in revoked:
                probe.forbid()
            # Whoever has the authority's keys as well does not bring them back.
            prober.try_to_pass("a revoked identity, anew", orders.port, forges(home, home, "mallory"))
            prober.try_to_pass("a revoked key, anew", orders.port, forges(home, home, "other", trudy.key))
            assert await standing.closed() == "broken"

        said: list[str] = []

        async def rotate_home() -> None:
            for _ in range(ROOTS):
                said.extend(await rotate(home, "root", orders))
            for _ in range(INTERMEDIATES):
                await rotate(home, "intermediate", orders)

        async def rotate_abroad() -> None:
            for _ in range(ROOTS):
                await rotate(abroad, "root", stock)

        await asyncio.gather(revoke_them(), rotate_home(), rotate_abroad())
        all_is_well()

        # --- old roots go ---
        said.append(await status(home))

        async def stands_on_one_root() -> bool:
            return len(home.state.bundle) == 1

        await comes_true(stands_on_one_root, "the old roots have left the bundle", OLD_ROOTS_GO)

        async def all_confirm() -> bool:
            return re.search(r"^([2-9]) of \1 known sidecars hold", await status(home), re.MULTILINE) is not None

        await comes_true(all_confirm, "the sidecars hold the bundle without them")

        async def none_passes() -> bool:
            return not any([await passes(probe.port, forged) for probe in of_first_root])

        await comes_true(none_passes, "the first root is believed by nobody")
        for probe in of_first_root:
            probe.forbid()

        async def enough() -> bool:
            all_is_well()
            renewed = home.issued_to("web", "orders") + abroad.issued_to("stock") - len([*sidecars])
            tried = all(probe.refused >= 3 for probe in prober.probes if probe.is_forbidden)
            return not prober.is_at_work or (renewed >= LEAVES and tried)

        await comes_true(enough, f"{LEAVES} certificates were renewed, and everybody tried to pass")

    all_is_well()
    assert min(load.answered["orders"], load.answered["stock"]) > 1_000
    assert [probe.refused for probe in lawful] == [0, 0]
    # One file of state has counted along: each root came into the bundle once and left it once.
    assert home.state.sequence == 1 + 2 * ROOTS
    assert home.bundle().certificates == (home.certificate(home.state.active.root),)
    assert len(sidecars.shown) > LEAVES // 4  # what was renewed was used
    words = "\n".join(said)
    for expected in ("it waits [1-9] s for refreshes", "have not confirmed sequence 2", "after its last certificate"):
        assert re.search(expected, words) is not None, words
    for sidecar in sidecars:
        assert await metric(sidecar.health_port, "remora_retries_total") == 0
        assert await metric(sidecar.health_port, "remora_certificate_renewal_failures_total") == 0
