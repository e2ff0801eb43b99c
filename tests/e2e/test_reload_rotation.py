"""A hundred rotations of certificate, intermediate and root under load: nothing fails, nothing is sent twice."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from mesh import OK, Backend, Mesh, Sidecar, Stream, eventually, get, service

from certs.authority import Authority, Svid
from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.testing import write_set

ROTATIONS = 100
DOMAIN = parse_trust_domain("cluster.local")


class Rotation:
    """The authorities of a mesh as they follow each other, and what its two sidecars are given."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC)
        self.authority = Authority.create(DOMAIN, self.now)
        self.trusted = [self.authority.root]

    def svid(self, account: str) -> Svid:
        return self.authority.issue_svid(SpiffeId.for_service_account(DOMAIN, "demo", account), self.now)

    @property
    def bundles(self) -> dict[object, TrustBundle]:
        bundle = TrustBundle(trust_domain=DOMAIN, certificates=tuple(self.trusted), sequence=None, refresh_hint=None)
        return {DOMAIN: bundle}

    def renew_intermediate(self) -> None:
        other = Authority.create(DOMAIN, self.now)
        fresh = dataclasses.replace(self.authority, intermediate_key=other.intermediate_key)
        self.authority = dataclasses.replace(fresh, intermediate=resigned(self.authority, other))


def resigned(authority: Authority, other: Authority) -> object:
    """The intermediate key of `other` under the root of `authority`."""
    from certs.profile import SignerShape, sign_signer

    assert authority.root_key is not None
    shape = SignerShape(trust_domain=DOMAIN, name="intermediate", lifetime=datetime.timedelta(days=1), path_length=0)
    now = datetime.datetime.now(datetime.UTC)
    key = other.intermediate_key.public_key()
    return sign_signer(shape, key, authority.root, authority.root_key, now)  # type: ignore[arg-type]


class Identity:
    """Where one sidecar's set is mounted, and whether it has been taken."""

    def __init__(self, sidecar: Sidecar, account: str) -> None:
        self.sidecar = sidecar
        self.account = account
        self.directory: Path = sidecar.directory / "identity"

    @property
    def generation(self) -> int:
        return self.sidecar.app.sidecar.tls_generation

    def publish(self, rotation: Rotation) -> tuple[str, int]:
        svid = rotation.svid(self.account)
        write_set(svid, rotation.bundles, self.directory)  # type: ignore[arg-type]
        return svid.leaf.fingerprint(SHA256()).hex(), self.generation + 1


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_a_hundred_rotations_under_load(mesh: Mesh) -> None:
    seen: set[str] = set()

    async def script(stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            caller = request.get("x-forwarded-client-cert") or b""
            seen.add(caller.decode().split("Hash=")[1][:64])
            await stream.send(OK)

    rotation = Rotation()
    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend, certificate=rotation.svid("orders"), bundles=rotation.bundles)
    calls = service("orders", orders)
    web = await mesh.sidecar("web", services=[calls], certificate=rotation.svid("web"), bundles=rotation.bundles)
    both = [Identity(orders, "orders"), Identity(web, "web")]
    answers: list[int] = []
    stop = False

    async def load() -> None:
        client = await mesh.plain_client(web)
        while not stop:
            await client.send(get())
            answers.append((await client.message()).status)
            await asyncio.sleep(0.002)

    callers = [asyncio.ensure_future(load()) for _ in range(4)]

    async def publish() -> None:
        """Give both sidecars a new set; go on when both have taken it and a request was served with the caller's."""
        expected = [identity.publish(rotation) for identity in both]
        for identity, (_, generation) in zip(both, expected, strict=True):
            await eventually(lambda identity=identity, generation=generation: identity.generation >= generation)
        caller = expected[1][0]
        await eventually(lambda: caller in seen)

    rotated = 0
    while rotated < ROTATIONS:
        if rotated % 30 == 29:
            # A root with overlap: all trust both, then all present the new one, then the old one goes.
            following = Authority.create(DOMAIN, rotation.now)
            rotation.trusted.append(following.root)
            await publish()
            rotation.authority = following
            await publish()
            del rotation.trusted[0]
            rotated += 2
        elif rotated % 10 == 9:
            rotation.renew_intermediate()
        await publish()
        rotated += 1
    stop = True
    await asyncio.gather(*callers)
    assert set(answers) == {200}
    assert len(seen) > ROTATIONS  # each set of the caller carried a request
    assert (web.app.sidecar.metrics.retries, orders.app.sidecar.metrics.retries) == (0, 0)
    assert not web.app.readiness.rejected
    assert not orders.app.readiness.rejected
    records = await web.records(len(answers), kind="request")
    assert {record["reason"] for record in records} == {"ok"}
    assert {record["retries"] for record in records} == {0}
