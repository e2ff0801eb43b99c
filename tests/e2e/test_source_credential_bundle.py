"""An identity from one PEM file, as the kubelet writes pod certificates, with roots from a projected trust bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mesh import Mesh, authority, eventually, get, svid

from certs.authority import Svid
from certs.files import publish


def project(directory: Path, identity: Svid, *, key: bytes | None = None) -> None:
    """Write a projected volume: one generation behind the link ..data, as the kubelet does."""
    publish(
        directory,
        {
            "credentialbundle.pem": (key or identity.key_pem()) + identity.chain_pem(),
            "trust-bundle.pem": authority().bundle.to_pem(),
        },
    )


def section(directory: Path) -> dict[str, dict[str, str]]:
    return {
        "credential_bundle": {
            "file": str(directory / "credentialbundle.pem"),
            "bundle_file": str(directory / "trust-bundle.pem"),
        }
    }


@pytest.mark.asyncio
async def test_a_pod_certificate_is_served_with_and_rotates(mesh: Mesh, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    project(volume, svid("orders"))
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(volume))
    client = await mesh.client(orders)
    await client.send(get("/"))
    assert (await client.message()).status == 200
    before = orders.app.sidecar.tls_generation
    fresh = authority().svid("demo", "orders")
    project(volume, fresh)
    await eventually(lambda: orders.app.sidecar.tls_generation > before)
    tls = orders.app.sidecar.tls
    assert tls is not None
    assert tls.identity_set.chain == fresh.chain
    await client.send(get("/"))
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_a_file_whose_key_does_not_fit_changes_nothing(mesh: Mesh, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    project(volume, svid("orders"))
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(volume))
    before = orders.app.sidecar.tls_generation
    project(volume, authority().svid("demo", "orders"), key=svid("web").key_pem())
    sentences = await eventually(lambda: orders.app.readiness.rejected.get("certificates"))
    assert any(
        str(volume / "credentialbundle.pem") in sentence and "does not fit" in sentence for sentence in sentences
    )
    assert orders.app.sidecar.tls_generation == before
    assert orders.app.sidecar.ready


@pytest.mark.asyncio
async def test_a_volume_that_is_not_there_yet_is_waited_for(mesh: Mesh, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(volume))
    assert not orders.app.sidecar.ready
    assert any("credentialbundle.pem" in sentence for sentence in orders.app.readiness.missing["certificates"])
    project(volume, svid("orders"))
    await eventually(lambda: orders.app.sidecar.ready)


@pytest.mark.asyncio
async def test_key_and_chain_are_of_one_moment_however_often_the_file_is_replaced(mesh: Mesh, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "trust-bundle.pem").write_bytes(authority().bundle.to_pem())
    bundles = [
        identity.key_pem() + identity.chain_pem()
        for identity in (authority().svid("demo", "orders", key=f"orders-{number}") for number in range(3))
    ]

    def replace(number: int) -> None:
        (volume / "new").write_bytes(bundles[number % 3])
        os.replace(volume / "new", volume / "credentialbundle.pem")

    replace(0)
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity=section(volume))
    for number in range(1, 6):
        before = orders.app.sidecar.tls_generation
        replace(number)
        await eventually(lambda before=before: orders.app.sidecar.tls_generation > before)
        assert "certificates" not in orders.app.readiness.rejected
