"""Bundle and revocation list reach a sidecar within a poll: the revoked are left and refused, a root is confirmed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from enrolment_lab import Lab, enrolled
from mesh import Mesh, Sidecar, authority, eventually, fetch_page, get, identity, service, svid
from plaintext import echo, is_refused, ping

from certs.authority import Authority
from certs.crl import build_crl
from certs.files import publish
from certs.requests import key_fingerprint
from certs.revocations import Kind
from certs.testing import set_files


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "authority") as made:
        yield made


async def poll(sidecar: Sidecar) -> None:
    """Ask the authority now, and wait until what came counts or is known to change nothing."""
    enrolment = sidecar.app.mounts.enrolment
    assert enrolment is not None
    enrolment.poll_now()


async def ready(mesh: Mesh, lab: Lab, **options: object) -> Sidecar:
    orders = await enrolled(mesh, lab, "orders", **options)
    await eventually(lambda: orders.app.sidecar.ready, "it is ready")
    return orders


def signer_of(sidecar: Sidecar) -> x509.Certificate | None:
    """The intermediate that stands behind its certificate."""
    tls = sidecar.app.sidecar.tls
    return None if tls is None else tls.identity_set.chain[-1]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(Kind))
async def test_the_revoked_are_left_and_refused(mesh: Mesh, lab: Lab, kind: Kind) -> None:
    orders = await ready(mesh, lab, app=await mesh.backend(echo), protocol="tcp")
    web, other = [await mesh.client(orders, name, alpn=[b"istio"]) for name in ("web", "batch")]
    certificate = authority().svid("demo", "caller", key="caller of this test")
    caller = await mesh.client(orders, certificate=certificate, alpn=[b"istio"])
    await ping(web, other, caller)
    leaf = certificate.leaf
    value = {
        Kind.SERIAL: f"{leaf.serial_number:x}",
        Kind.IDENTITY: identity("caller"),
        Kind.KEY: key_fingerprint(leaf.public_key()),  # type: ignore[arg-type]
    }[kind]
    lab.revoke(kind, value)
    await poll(orders)
    assert await caller.closed() == "broken"
    await ping(web, other)
    assert await is_refused(await mesh.client(orders, certificate=certificate, alpn=[b"istio"]))
    first, second = await orders.records(2, kind="connection")
    assert {first["reason"], second["reason"]} == {"certificate_revoked"}


@pytest.mark.asyncio
async def test_a_server_that_is_revoked_is_left(mesh: Mesh, lab: Lab) -> None:
    server = authority().svid("demo", "stock", key="stock of this test")
    stock = await mesh.sidecar("stock", app=await mesh.backend(), certificate=server)
    orders = await ready(mesh, lab, services=[service("stock", stock)])
    client = await mesh.plain_client(orders)
    await client.send(get(host="stock"))
    assert (await client.message()).status == 200
    lab.revoke(Kind.SERIAL, f"{server.leaf.serial_number:x}")
    await poll(orders)
    await eventually(lambda: stock.open_connections == 0, "the connection to it is closed")
    await client.send(get(host="stock"))
    answer = await client.message()
    assert answer.status == 503
    records = await orders.records(2, kind="request")
    assert records[-1]["reason"] == "upstream_identity_rejected"


@pytest.mark.asyncio
async def test_fail_closed_refuses_without_a_fresh_list_and_leaves_what_stands(mesh: Mesh, lab: Lab) -> None:
    lab.crl_lifetime = datetime.timedelta(seconds=3)
    orders = await ready(mesh, lab, app=await mesh.backend(echo), protocol="tcp", asks={"crl": "fail-closed"})
    client = await mesh.client(orders, alpn=[b"istio"])
    await ping(client)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3.5)
    await eventually(lambda: datetime.datetime.now(datetime.UTC) > end)
    assert await is_refused(await mesh.client(orders, alpn=[b"istio"]))
    await ping(client)
    [record] = await orders.records(kind="connection")
    assert record["reason"] == "revocations_unknown"
    assert "should have been replaced" in orders.app.readiness.standing["revocations"]()
    lab.crl_lifetime = datetime.timedelta(hours=1)
    await poll(orders)
    await eventually(lambda: "in force" in orders.app.readiness.standing["revocations"]())
    await ping(await mesh.client(orders, alpn=[b"istio"]))


@pytest.mark.asyncio
@pytest.mark.parametrize("crl", ["warn", "fail-closed"])
async def test_without_any_list_the_policy_decides(mesh: Mesh, lab: Lab, crl: str) -> None:
    lab.has_crl = False
    orders = await ready(mesh, lab, app=await mesh.backend(echo), protocol="tcp", asks={"crl": crl})
    client = await mesh.client(orders, alpn=[b"istio"])
    if crl == "warn":
        await ping(client)
    else:
        assert await is_refused(client)


@pytest.mark.asyncio
async def test_an_empty_bundle_ends_the_trust_domain(mesh: Mesh, lab: Lab) -> None:
    orders = await ready(mesh, lab, app=await mesh.backend(echo), protocol="tcp")
    client = await mesh.client(orders, alpn=[b"istio"])
    await ping(client)
    lab.publish()
    await poll(orders)
    assert await client.closed() == "broken"
    assert await is_refused(await mesh.client(orders, alpn=[b"istio"]))
    records = await orders.records(2, kind="connection")
    assert records[0]["reason"] == "trust_ended"


@pytest.mark.asyncio
async def test_a_new_root_is_confirmed_and_the_end_of_the_old_one_brings_a_new_certificate(
    mesh: Mesh, lab: Lab
) -> None:
    orders = await ready(mesh, lab, app=await mesh.backend())
    following = Authority.create(lab.issuer.trust_domain, lab.now)
    old = lab.issuer.root
    lab.publish(old, following.root)
    await poll(orders)
    await eventually(lambda: orders.app.sidecar.tls_generation == 2, "the new bundle counts")
    await poll(orders)
    await eventually(lambda: any("confirms=2" in ask.path for ask in lab.polled), "it is confirmed")
    assert all(ask.peer == identity("orders") for ask in lab.polled)
    assert len(lab.signed) == 1
    # From now on the authority stands on the new root, and then the old one goes.
    lab.issuer = following
    lab.show("spiffe://cluster.local/ns/remora-system/sa/remora-authority")
    lab.publish(following.root)
    await poll(orders)
    await eventually(lambda: len(lab.signed) >= 2, "another certificate is asked for", 10)
    await eventually(lambda: signer_of(orders) == following.intermediate, "a chain of the new root")
    assert orders.app.readiness.is_ready


@pytest.mark.asyncio
async def test_an_older_bundle_and_an_older_list_change_nothing(mesh: Mesh, lab: Lab) -> None:
    orders = await ready(mesh, lab, app=await mesh.backend(echo), protocol="tcp")
    before_list, before_bundle = lab.revocations, lab.bundle
    certificate = authority().svid("demo", "caller", key="caller of another test")
    lab.revoke(Kind.SERIAL, f"{certificate.leaf.serial_number:x}")
    lab.publish(lab.issuer.root)
    await poll(orders)
    await eventually(lambda: orders.app.sidecar.tls_generation == 2)
    lab.revocations, lab.bundle = before_list, before_bundle
    await poll(orders)
    enrolment = orders.app.mounts.enrolment
    assert enrolment is not None
    await eventually(lambda: "would bring back what was revoked since" in enrolment.poll_fault)
    assert "the older one is ignored" in enrolment.poll_fault
    assert await is_refused(await mesh.client(orders, certificate=certificate, alpn=[b"istio"]))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["crl.der", "crl.pem"])
async def test_a_mounted_list_does_the_same(mesh: Mesh, lab: Lab, name: str) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(echo), protocol="tcp")
    certificate = authority().svid("demo", "caller", key="caller of a third test")
    caller, web = [await mesh.client(orders, certificate=one, alpn=[b"istio"]) for one in (certificate, svid("web"))]
    await ping(caller, web)
    lab.revoke(Kind.SERIAL, f"{certificate.leaf.serial_number:x}")
    crl = build_crl(lab.revocations, authority().intermediate, authority().intermediate_key, lab.now)
    encoding = Encoding.DER if name == "crl.der" else Encoding.PEM
    files = set_files(svid("orders"), authority().bundles) | {name: crl.public_bytes(encoding)}
    publish(orders.identity_directory, files)
    assert await caller.closed() == "broken"
    await ping(web)
    assert await is_refused(await mesh.client(orders, certificate=certificate, alpn=[b"istio"]))
    first, second = await orders.records(2, kind="connection")
    assert {first["reason"], second["reason"]} == {"certificate_revoked"}


@pytest.mark.asyncio
async def test_two_workers_share_one_enrolment(mesh: Mesh, lab: Lab) -> None:
    section = lab.section("orders")
    runtime = {"workers": 2, "watch_interval": "0.05s"}
    orders = await mesh.process("orders", app=await mesh.backend(), publish=False, identity=section, runtime=runtime)
    for _ in range(4):
        client = await mesh.client(orders)
        await client.send(get())
        assert (await client.message()).status == 200
    assert len(lab.signed) == 1
    assert b"remora_certificate_renewals_total 1.0" in (await fetch_page(orders.health_port, "/metrics")).body
