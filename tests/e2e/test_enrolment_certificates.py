"""A sidecar gets its certificate from an authority, renews it, and outlives the authority's absence."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from enrolment_lab import AUTHORITY_ID, BRIEF, Lab, enrolled
from mesh import Mesh, Sidecar, eventually, fetch_page, get, identity

from certs.authority import Authority
from certs.joins import new_token
from proxy import mounts


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "authority") as made:
        yield made


async def is_ready(sidecar: Sidecar) -> None:
    await eventually(lambda: sidecar.app.sidecar.ready, "it is ready")


async def served(mesh: Mesh, sidecar: Sidecar) -> int:
    client = await mesh.client(sidecar)
    await client.send(get())
    return (await client.message()).status


def says(sidecar: Sidecar) -> str:
    """What is missing before it is ready."""
    return " ".join(sidecar.app.readiness.missing.get("certificates", []))


@pytest.mark.asyncio
async def test_the_first_certificate_comes_by_a_token_and_its_key_is_on_no_disk(mesh: Mesh, lab: Lab) -> None:
    orders = await enrolled(mesh, lab, "orders", app=await mesh.backend())
    await is_ready(orders)
    assert await served(mesh, orders) == 200
    [ask] = lab.signed
    assert ask.peer is None
    assert ask.members["token"] == "token-of-orders"
    assert "bundle_sequence" not in ask.members
    assert str(orders.app.sidecar.tls.identity_set.spiffe_id) == identity("orders")  # type: ignore[union-attr]
    written = [path for path in orders.directory.rglob("*") if path.is_file()]
    assert written
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in written)
    ready = await fetch_page(orders.health_port, "/readyz")
    assert ready.status == 200


@pytest.mark.asyncio
async def test_metrics_and_readiness_tell_what_is_left(mesh: Mesh, lab: Lab) -> None:
    orders = await enrolled(mesh, lab, "orders")
    await is_ready(orders)
    metrics = orders.app.sidecar.metrics.exposition().decode()
    assert "remora_certificate_renewals_total 1.0\n" in metrics
    assert "remora_certificate_renewal_failures_total 0.0\n" in metrics
    assert 'remora_revocation_list_sequence{trust_domain="cluster.local"} 1.0\n' in metrics
    left = orders.app.readiness.standing["certificate"]()
    assert left.startswith("24.0 h left, renewal in 1")
    assert orders.app.readiness.standing["revocations"]() == "list 1 is in force"


@pytest.mark.asyncio
async def test_it_is_renewed_with_the_certificate_a_fresh_token_and_a_new_key(mesh: Mesh, lab: Lab) -> None:
    lab.lifetime = BRIEF
    orders = await enrolled(mesh, lab, "orders", app=await mesh.backend())
    await is_ready(orders)
    lab.token_file("orders").write_text("another-token")
    lab.tokens["another-token"] = identity("orders")
    client = await mesh.client(orders)
    await eventually(lambda: len(lab.signed) >= 3, "two renewals", 10)
    assert [ask.peer for ask in lab.signed[:3]] == [None, identity("orders"), identity("orders")]
    assert [ask.members["token"] for ask in lab.signed[1:3]] == ["another-token"] * 2
    assert lab.signed[1].members["bundle_sequence"] == 1
    assert len({ask.members["csr"] for ask in lab.signed}) == len(lab.signed)
    assert len({ask.members["instance"] for ask in lab.signed}) == 1
    await eventually(lambda: orders.app.sidecar.tls_generation >= 3)
    await client.send(get())  # a connection of before the renewals
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_an_authority_that_is_away_disturbs_nobody(mesh: Mesh, lab: Lab) -> None:
    lab.lifetime = BRIEF
    orders = await enrolled(mesh, lab, "orders", app=await mesh.backend())
    await is_ready(orders)
    lab.is_away = True
    enrolment = orders.app.mounts.enrolment
    assert enrolment is not None
    await eventually(lambda: enrolment.failures >= 2, "two attempts failed", 15)
    assert await served(mesh, orders) == 200
    assert orders.app.readiness.is_ready
    assert "the peer went away during the handshake" in orders.app.readiness.standing["certificate"]()
    before = enrolment.renewals
    lab.is_away = False
    await eventually(lambda: enrolment.renewals > before, "it is renewed again", 15)
    assert enrolment.fault == ""


@pytest.mark.asyncio
async def test_nothing_is_sent_to_another_identity(mesh: Mesh, lab: Lab) -> None:
    lab.show(identity("orders"))
    orders = await enrolled(mesh, lab, "orders")
    await eventually(lambda: "server_identity_unexpected" in says(orders), "the authority is not believed")
    assert AUTHORITY_ID in says(orders)
    assert lab.asked == []


@pytest.mark.asyncio
async def test_nothing_is_sent_to_an_authority_of_another_root(mesh: Mesh, lab: Lab) -> None:
    lab.show(AUTHORITY_ID, Authority.create(lab.issuer.trust_domain, lab.now))
    orders = await enrolled(mesh, lab, "orders")
    await eventually(lambda: "issuer_unknown" in says(orders), "the authority is not believed")
    assert "bundle_file" in says(orders)
    assert lab.asked == []


@pytest.mark.asyncio
async def test_a_refusal_is_told_and_a_token_that_comes_later_is_taken(mesh: Mesh, lab: Lab) -> None:
    orders = await enrolled(mesh, lab, "orders", token="not-yet-known")
    del lab.tokens["not-yet-known"]
    lab.token_file("orders").write_text("stale")
    await eventually(lambda: "token_refused: the token is nobody's; mount a fresh one" in says(orders))
    assert "stale" not in says(orders)
    lab.tokens["fresh"] = identity("orders")
    lab.token_file("orders").write_text("fresh")
    await is_ready(orders)


@pytest.mark.asyncio
@pytest.mark.parametrize("file", ["token", "bundle"])
async def test_a_missing_file_is_named(mesh: Mesh, lab: Lab, file: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    orders = await enrolled(mesh, lab, "orders", asks={f"{file}_file": missing})
    await eventually(lambda: missing in says(orders), "the file is named")
    assert "No such file" in says(orders)


@pytest.mark.asyncio
async def test_a_join_token_is_sent_once(mesh: Mesh, lab: Lab) -> None:
    lab.lifetime = BRIEF
    orders = await enrolled(mesh, lab, "orders", token=new_token())
    await is_ready(orders)
    await eventually(lambda: len(lab.signed) >= 2, "a renewal", 10)
    assert "token" in lab.signed[0].members
    assert "token" not in lab.signed[1].members
    assert lab.signed[1].peer == identity("orders")
    await eventually(lambda: orders.app.sidecar.tls_generation >= 2)


@pytest.mark.asyncio
async def test_a_clock_that_is_45_seconds_off_is_survived(mesh: Mesh, lab: Lab) -> None:
    lab.ahead = datetime.timedelta(seconds=45)
    orders = await enrolled(mesh, lab, "orders")
    await is_ready(orders)


@pytest.mark.asyncio
@pytest.mark.parametrize("tells_date", [True, False])
async def test_a_clock_that_is_minutes_off_is_named(mesh: Mesh, lab: Lab, tells_date: bool) -> None:
    lab.ahead, lab.tells_date = datetime.timedelta(minutes=5), tells_date
    orders = await enrolled(mesh, lab, "orders")
    await eventually(lambda: "s behind the authority's; set one of them right" in says(orders))
    assert "is not valid before" in says(orders)


@pytest.mark.asyncio
async def test_a_certificate_that_is_asked_for_has_the_lifetime_asked_for(mesh: Mesh, lab: Lab) -> None:
    orders = await enrolled(mesh, lab, "orders", asks={"lifetime": "15m"})
    await is_ready(orders)
    assert lab.signed[0].members["lifetime_seconds"] == 900
    assert orders.app.readiness.standing["certificate"]().startswith("15.0 min left, renewal in ")
    enrolment = orders.app.mounts.enrolment
    assert enrolment is not None
    assert 6.5 * 60 < enrolment.renewal_due - time.time() < 7.5 * 60


@pytest.mark.asyncio
async def test_a_certificate_that_has_ended_is_missed_and_a_clock_that_goes_back_renews_it(
    mesh: Mesh, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = await enrolled(mesh, lab, "orders")
    await is_ready(orders)
    enrolment, readiness = orders.app.mounts.enrolment, orders.app.readiness
    assert enrolment is not None
    lab.is_away = True
    with monkeypatch.context() as patch:
        later = SimpleNamespace(time=lambda: time.time() + 2 * 86_400)
        patch.setattr(enrolment, "_now", later.time)
        patch.setattr(mounts, "time", later)
        enrolment.poll_now()  # the nap ends, and the clock is looked at
        await eventually(lambda: "certificates" in readiness.missing, "the end is told")
        assert "our certificate has ended and was not renewed" in readiness.missing["certificates"][0]
    lab.is_away = False
    await eventually(lambda: enrolment.renewals == 2, "it is renewed though by the calendar nothing is due", 15)
    await eventually(lambda: readiness.is_ready)
