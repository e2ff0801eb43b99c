"""A sidecar that polls another trust domain's bundle: whom it lets in when, and what ends with the bundle."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from admin_caller import ask
from bundle_endpoint import Endpoint, bundle_answer, web_certificate
from mesh import Mesh, Process, Sidecar, authority, eventually, free_port, get, loop_name, svid

from certs.bundle import TrustBundle
from certs.testing import MemoryAuthority, write_set


def neighbour() -> MemoryAuthority:
    return authority().neighbour


def jwks(*authorities: MemoryAuthority, sequence: int = 1, hint: int | None = None) -> bytes:
    roots = tuple(each.root for each in authorities)
    bundle = TrustBundle(
        trust_domain=neighbour().trust_domain, certificates=roots, sequence=sequence, refresh_hint=hint
    )
    return bundle.to_jwks()


OURS_ALONE = {authority().trust_domain: authority().bundle}


def federation(directory: Path, serving: Endpoint) -> list[dict[str, Any]]:
    roots = directory / "web-roots.pem"
    roots.write_bytes(authority().stranger.bundle.to_pem())
    return [
        {
            "trust_domain": str(neighbour().trust_domain),
            "url": serving.url,
            "profile": "https_web",
            "ca_file": str(roots),
        }
    ]


def serve(directory: Path, body: bytes) -> Endpoint:
    return Endpoint(directory, web_certificate(authority().stranger), lambda _: bundle_answer(body))


async def admitted(mesh: Mesh, orders: Sidecar | Process) -> bool:
    """Say whether a caller of the neighbour is served now, on a connection of its own."""
    client = await mesh.client(orders, certificate=neighbour().svid("demo", "partner"))
    with contextlib.suppress(OSError):
        await client.send(get("/"))
        return (await client.message()).status == 200
    return False


async def until_admitted(mesh: Mesh, orders: Sidecar | Process) -> None:
    for _ in range(200):
        if await admitted(mesh, orders):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the neighbour was not admitted")


def poll_now(orders: Sidecar) -> None:
    polled = orders.app.mounts.supply.federation
    assert polled is not None
    polled.poll_now()


@pytest.mark.asyncio
async def test_a_foreign_caller_comes_in_by_the_polled_bundle_and_goes_with_it(mesh: Mesh, tmp_path: Path) -> None:
    with serve(tmp_path, jwks(neighbour())) as serving:
        orders = await mesh.sidecar(
            "orders", app=await mesh.backend(), bundles=OURS_ALONE, federation=federation(tmp_path, serving)
        )
        await until_admitted(mesh, orders)
        foreign = await mesh.client(orders, certificate=neighbour().svid("demo", "partner"))
        own = await mesh.client(orders)
        for client in (foreign, own):
            await client.send(get("/"))
            assert (await client.message()).status == 200
        serving.say = lambda _: bundle_answer(jwks(sequence=2))
        poll_now(orders)
        await foreign.closed()
        assert not await admitted(mesh, orders)
        await own.send(get("/"))
        assert (await own.message()).status == 200


@pytest.mark.asyncio
async def test_nobody_is_let_in_by_an_endpoint_that_serves_no_bundle(mesh: Mesh, tmp_path: Path) -> None:
    with serve(tmp_path, b"<html>") as serving:
        orders = await mesh.sidecar(
            "orders", app=await mesh.backend(), bundles=OURS_ALONE, federation=federation(tmp_path, serving)
        )
        await eventually(lambda: serving.requests)
        assert not await admitted(mesh, orders)
        assert orders.app.sidecar.ready, "a foreign endpoint keeps nobody from serving at home"


@pytest.mark.asyncio
async def test_a_bundle_vouches_for_its_own_domain_alone(mesh: Mesh, tmp_path: Path) -> None:
    with serve(tmp_path, jwks(neighbour())) as serving:
        orders = await mesh.sidecar(
            "orders", app=await mesh.backend(), bundles=OURS_ALONE, federation=federation(tmp_path, serving)
        )
        await eventually(
            lambda: orders.app.sidecar.tls and neighbour().trust_domain in orders.app.sidecar.tls.trust.roots
        )
        impostor = neighbour().svid("demo", "web", uris=(b"spiffe://cluster.local/ns/demo/sa/web",))
        client = await mesh.client(orders, certificate=impostor)
        with contextlib.suppress(OSError):
            await client.send(get("/"))
        await client.closed()
        records = await orders.records(1, kind="connection")
        assert records[0]["reason"] == "root_of_other_trust_domain"


@pytest.mark.asyncio
async def test_removal_from_the_configuration_ends_what_stands_on_it(mesh: Mesh, tmp_path: Path) -> None:
    with serve(tmp_path, jwks(neighbour())) as serving:
        orders = await mesh.sidecar(
            "orders", app=await mesh.backend(), bundles=OURS_ALONE, federation=federation(tmp_path, serving)
        )
        await until_admitted(mesh, orders)
        foreign = await mesh.client(orders, certificate=neighbour().svid("demo", "partner"))
        await foreign.send(get("/"))
        assert (await foreign.message()).status == 200
        config = yaml.safe_load(orders.config_file.read_text())
        del config["federation"]
        orders.config_file.write_text(yaml.safe_dump(config))
        await foreign.closed()
        assert not await admitted(mesh, orders)


@pytest.mark.asyncio
async def test_an_order_counts_while_our_own_files_are_broken(mesh: Mesh, tmp_path: Path) -> None:
    with serve(tmp_path, jwks(neighbour())) as serving:
        orders = await mesh.sidecar(
            "orders", app=await mesh.backend(), bundles=OURS_ALONE, federation=federation(tmp_path, serving)
        )
        await until_admitted(mesh, orders)
        write_set(authority().stranger.svid("demo", "orders"), authority().stranger.bundles, orders.identity_directory)
        await eventually(lambda: orders.app.readiness.rejected.get("certificates"))
        serving.say = lambda _: bundle_answer(jwks(sequence=2))
        poll_now(orders)
        for _ in range(200):
            if not await admitted(mesh, orders):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the neighbour is admitted still")


@pytest.mark.asyncio
async def test_a_bundle_that_is_mounted_as_well_is_a_fault_until_one_of_the_two_goes(
    mesh: Mesh, tmp_path: Path
) -> None:
    with serve(tmp_path, jwks(neighbour())) as serving:
        orders = await mesh.sidecar("orders", app=await mesh.backend(), federation=federation(tmp_path, serving))
        rejected = orders.app.readiness.rejected
        sentences = await eventually(lambda: rejected.get("federation"))
        assert "two sources for one trust" in sentences[0]
        assert await admitted(mesh, orders), "the mounted one is in force"
        write_set(svid("orders"), OURS_ALONE, orders.identity_directory)
        await eventually(lambda: "federation" not in rejected and "certificates" not in rejected)
        assert await admitted(mesh, orders), "and now the polled one is"


@pytest.mark.asyncio
async def test_workers_share_one_poller_and_hear_of_what_it_learns(mesh: Mesh, tmp_path: Path) -> None:
    admin = free_port()
    with serve(tmp_path, jwks(neighbour(), hint=5)) as serving:
        orders = await mesh.process(
            "orders",
            app=await mesh.backend(),
            bundles=OURS_ALONE,
            federation=federation(tmp_path, serving),
            runtime={"loop": loop_name(), "workers": 2, "watch_interval": "0.05s"},
            admin={"listen": f"127.0.0.1:{admin}"},
        )
        await until_admitted(mesh, orders)
        assert len(serving.requests) == 1
        page = await ask(admin, "/readyz")
        assert f"federation: {neighbour().trust_domain}: 1 roots, fetched".encode() in page.body
        foreign = await mesh.client(orders, certificate=neighbour().svid("demo", "partner"))
        await foreign.send(get("/"))
        assert (await foreign.message()).status == 200
        serving.say = lambda _: bundle_answer(jwks(sequence=2))
        await eventually(lambda: len(serving.requests) > 1, "a poll by the refresh hint", seconds=10)
        await foreign.closed()
        assert not await admitted(mesh, orders)
