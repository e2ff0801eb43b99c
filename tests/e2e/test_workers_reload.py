"""What is mounted reaches every worker: policy, certificates, ports; and all of them hold one generation."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import yaml
from cryptography.hazmat.primitives.hashes import SHA256
from mesh import ALLOW_ALL, Mesh, accepts, authority, eventually, free_port, get, policy
from mesh_streams import Stream
from worker_process import Crew, crew, generations

from certs.testing import write_set

ELSEWHERE = policy("elsewhere", '[{to: [{operation: {paths: ["/elsewhere"]}}]}]')


def replace_policy(orders: Crew, text: str) -> None:
    file = orders.process.policy_directory / "policies.yaml"
    (file.parent / ".new").write_text(text)
    (file.parent / ".new").rename(file)


async def status(client: Stream) -> int:
    await client.send(get("/"))
    return (await client.message()).status


@pytest.mark.asyncio
async def test_a_new_policy_reaches_connections_of_every_worker_within_two_seconds(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    of_workers = (await orders.clients_of_each(mesh, 2)).values()
    for phase, (text, expected) in enumerate(((ELSEWHERE, 403), (ALLOW_ALL, 200))):
        replace_policy(orders, text)
        changed = time.monotonic()
        for client in [clients[phase] for clients in of_workers]:
            while True:
                await client.send(get("/"))
                answer = await client.message()
                # One that was on its way when the policy changed is finished, and its connection ends for the change.
                if answer.status == expected or answer.get("connection") == b"close":
                    break
                assert time.monotonic() < changed + 2, orders.process.output
                await asyncio.sleep(0.02)
        assert generations(orders.process.output, "policy")[-1] == phase + 2
    denied = (await orders.page("/decisions?decision=deny"))["decisions"]
    assert {row["generation"] for row in denied} <= {2}


@pytest.mark.asyncio
async def test_a_broken_policy_changes_nothing_in_any_worker(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    clients = [client for [client, *_] in (await orders.clients_of_each(mesh)).values()]
    replace_policy(orders, "kind: [")
    await eventually(lambda: "policy rejected" in orders.process.output)
    assert [await status(client) for client in clients] == [200] * len(clients)
    assert (await orders.metrics())['remora_config_rejected{kind="policy"}'] == 1
    assert (await orders.page("/readyz?format=json"))["rejected"]["policy"]


@pytest.mark.asyncio
async def test_new_certificates_are_shown_by_every_worker(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    fresh = authority().svid("demo", "orders")
    write_set(fresh, authority().bundles, orders.process.identity_directory)
    await eventually(lambda: generations(orders.process.output, "certificates") == [1, 2])
    await asyncio.sleep(0)
    expected = fresh.leaf.fingerprint(SHA256())
    deadline = time.monotonic() + 5
    while True:
        clients = [client for [client, *_] in (await orders.clients_of_each(mesh)).values()]
        shown = {shown_by(client) for client in clients}
        if shown == {expected}:
            break
        assert time.monotonic() < deadline, "a worker shows the old certificate"


def shown_by(client: Stream) -> bytes:
    assert client.tls is not None
    certificate = client.tls.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.fingerprint(SHA256())


@pytest.mark.asyncio
async def test_a_port_that_is_added_is_served_by_every_worker_and_one_that_is_removed_by_none(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await crew(mesh, app=backend)
    old, new = orders.process.port, free_port()
    file = orders.process.config_file
    config = yaml.safe_load(file.read_text())
    config["inbound"]["ports"] = [
        {"listen": f"127.0.0.1:{new}", "port": 9090, "app": f"127.0.0.1:{backend.port}", "protocol": "http"}
    ]
    file.write_text(yaml.safe_dump(config))
    await eventually(lambda: accepts(new))
    await eventually(lambda: not accepts(old), "the port that was removed is closed")
    orders.process.ports = {**orders.process.ports, "inbound": [new]}
    clients = await orders.clients_of_each(mesh)
    assert all(clients.values())
    victim = orders.pid_of(1)
    os.kill(victim, signal.SIGKILL)  # what begins now begins with the configuration in force
    await eventually(lambda: len(orders.workers) == len(clients) and victim not in orders.workers)
    await orders.process.readiness(200)
    again = await orders.clients_of_each(mesh)
    assert all(again.values())
    assert not accepts(old)


@pytest.mark.asyncio
async def test_it_is_ready_when_all_workers_hold_the_generation(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend(), policies=None, ready=False)
    await orders.process.readiness(503)
    await eventually(lambda: len(orders.workers) == 2)
    orders.process.policy_directory.mkdir()
    (orders.process.policy_directory / "policies.yaml").write_text(ALLOW_ALL)
    await orders.process.readiness(200)
    slow = orders.pid_of(2)
    os.kill(slow, signal.SIGSTOP)
    try:
        replace_policy(orders, ELSEWHERE)
        await orders.process.readiness(503)
        missing = (await orders.page("/readyz?format=json"))["missing"]
        assert list(missing) == ["workers"]
        assert missing["workers"][0].startswith("worker 2 ")
        metrics = await orders.metrics()
        assert metrics["remora_ready"] == 0
        assert metrics['remora_worker_numbers_age_seconds{worker="2"}'] > 1
        assert metrics['remora_worker_numbers_age_seconds{worker="1"}'] < 1
        assert (await orders.page("/"))["facts"]["workers_without_answer"] == [2]
    finally:
        os.kill(slow, signal.SIGCONT)
    await orders.process.readiness(200)
    clients = [await mesh.client(orders.process) for _ in range(8)]
    assert [await status(client) for client in clients] == [403] * 8
