"""A valid change is taken however it is written; a broken one keeps what is in force, and says so everywhere."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from mesh import ALLOW_ALL, Mesh, Sidecar, authority, eventually, fetch_page, get, policy, svid

from certs.store import publish
from certs.testing import set_files, write_set

ONLY_INFO = policy("info", '[{to: [{operation: {paths: ["/info"]}}]}]')


async def status(mesh: Mesh, orders: Sidecar, path: str = "/") -> int:
    client = await mesh.client(orders)
    await client.send(get(path))
    answer = await client.message()
    client.close()
    return answer.status


async def gauge(orders: Sidecar, kind: str) -> str:
    text = (await fetch_page(orders.health_port, "/metrics")).body.decode()
    return next(line for line in text.splitlines() if line.startswith(f'remora_config_rejected{{kind="{kind}"}}'))[-3:]


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    fresh = file.with_name(".fresh")
    fresh.write_text(text)
    fresh.rename(file)


@pytest.mark.asyncio
@pytest.mark.parametrize("write", [in_place, by_rename])
async def test_a_policy_file_that_is_written_anew(mesh: Mesh, write: object) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ALLOW_ALL)
    assert await status(mesh, orders) == 200
    write(orders.directory / "policy" / "policies.yaml", ONLY_INFO)  # type: ignore[operator]
    await eventually(lambda: orders.app.sidecar.policy_generation == 2, seconds=2)
    assert (await status(mesh, orders), await status(mesh, orders, "/info")) == (403, 200)


@pytest.mark.asyncio
async def test_a_policy_directory_whose_link_is_swapped(mesh: Mesh) -> None:
    directory = mesh.directory / "mounted"
    directory.mkdir()
    publish(directory, {"policies.yaml": ALLOW_ALL.encode()})
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=None, policy={"directory": str(directory)})
    assert await status(mesh, orders) == 200
    publish(directory, {"other.yaml": ONLY_INFO.encode()})
    await eventually(lambda: orders.app.sidecar.policy_generation == 2, seconds=2)
    assert await status(mesh, orders) == 403


@pytest.mark.asyncio
async def test_a_broken_policy_keeps_the_old_one_and_says_why(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_INFO)
    file = orders.directory / "policy" / "policies.yaml"
    file.write_text(ONLY_INFO.replace("paths", "pathes"))
    rejected = orders.app.readiness.rejected
    await eventually(lambda: "policy" in rejected, seconds=2)
    assert (await status(mesh, orders), await status(mesh, orders, "/info")) == (403, 200)
    [sentence] = rejected["policy"]
    assert f"{file}:4:" in sentence
    assert "pathes" in sentence
    assert sentence in caplog.text
    assert await gauge(orders, "policy") == "1.0"
    page = await fetch_page(orders.health_port, "/readyz")
    assert (page.status, page.body) == (200, b"ready\n")
    file.write_text(ONLY_INFO)  # what is in force
    await eventually(lambda: not rejected, seconds=2)
    assert orders.app.sidecar.policy_generation == 1
    assert await gauge(orders, "policy") == "0.0"


@pytest.mark.asyncio
async def test_a_policy_directory_that_goes_away_is_no_empty_one(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ALLOW_ALL)
    (orders.directory / "policy").rename(orders.directory / "gone")
    await eventually(lambda: "policy" in orders.app.readiness.rejected, seconds=2)
    assert await status(mesh, orders) == 200


@pytest.mark.asyncio
async def test_a_broken_identity_keeps_the_old_one(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    before = orders.app.sidecar.tls
    identity = orders.directory / "identity"
    files = set_files(svid("orders"), authority().bundles)
    publish(identity, {**files, "tls.key": set_files(svid("web"), authority().bundles)["tls.key"]})
    await eventually(lambda: "certificates" in orders.app.readiness.rejected, seconds=2)
    assert orders.app.sidecar.tls is before
    assert await status(mesh, orders) == 200
    assert await gauge(orders, "certificates") == "1.0"
    write_set(authority().svid("demo", "orders"), authority().bundles, identity)
    await eventually(lambda: orders.app.sidecar.tls_generation == 2, seconds=2)
    assert not orders.app.readiness.rejected
    assert await status(mesh, orders) == 200


@pytest.mark.asyncio
async def test_somebody_elses_certificate_is_not_taken(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    write_set(svid("web"), authority().bundles, orders.directory / "identity")
    await eventually(lambda: "certificates" in orders.app.readiness.rejected, seconds=2)
    assert "/sa/web" in " ".join(orders.app.readiness.rejected["certificates"])
    assert await status(mesh, orders) == 200


@pytest.mark.asyncio
async def test_an_identity_that_nobody_renews_is_missed_when_it_has_ended(mesh: Mesh) -> None:
    soon = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(seconds=2)
    orders = await mesh.sidecar("orders", certificate=authority().svid("demo", "orders", not_after=soon))
    readiness = orders.app.readiness
    await eventually(lambda: readiness.is_ready)
    [told] = await eventually(lambda: readiness.missing.get("certificates"), "the end is told")
    assert "our certificate has ended" in told
    assert not readiness.is_ready
    assert (await fetch_page(orders.health_port, "/readyz")).status == 503
    write_set(svid("orders"), authority().bundles, orders.directory / "identity")
    await eventually(lambda: readiness.is_ready, "a new one heals it")
