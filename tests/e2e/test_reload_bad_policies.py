"""Every malformed policy file that we have, one after the other, in a live sidecar: the old set stays in force.

Callers go on all the while, and the decisions are those of the set that was in force before. What is wrong stands in
the detail of readiness, at its place.
"""

from __future__ import annotations

import asyncio

import pytest
from mesh import Mesh, Sidecar, get, policy
from policy_corpus import bad_files
from policy_swap import Mounted

GOOD = {"good.yaml": policy("good", '[{to: [{operation: {paths: ["/open"]}}]}]').encode()}


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_no_bad_file_changes_what_is_in_force(mesh: Mesh) -> None:
    backend = await mesh.backend()
    mounted = Mounted(mesh.directory / "mounted")
    app = f"127.0.0.1:{backend.port}"
    orders = await mesh.sidecar(
        "orders",
        inbound=[
            {"port": 8080, "app": app, "protocol": "http"},
            {"port": 3306, "app": app, "protocol": "tcp"},
        ],
        policies=None,
        policy={"directory": str(mounted.directory)},
        runtime=mounted.runtime,
    )
    assert mounted.swap(orders, GOOD) == []
    in_force = orders.app.sidecar.policy
    stopped = asyncio.Event()
    callers = [
        asyncio.ensure_future(call(mesh, orders, path, status, stopped))
        for path, status in (("/open", 200), ("/closed", 403))
    ]
    for bad in bad_files():
        faults = mounted.swap(orders, {**GOOD, bad.name: bad.content})
        assert faults == bad.faults(f"{mounted.directory}/{bad.name}")
        assert orders.app.sidecar.policy is in_force
        assert orders.app.sidecar.metrics.config_rejected["policy"]
        assert orders.app.readiness.rejected["policy"] == faults
        await asyncio.sleep(0.002)
    stopped.set()
    served = await asyncio.gather(*callers)
    assert min(served) > 50
    # and a set that is whole again is taken
    assert mounted.swap(orders, {"good.yaml": GOOD["good.yaml"].replace(b"/open", b"/other")}) == []
    assert not orders.app.sidecar.metrics.config_rejected["policy"]
    client = await mesh.client(orders)
    await client.send(get("/open"))
    assert (await client.message()).status == 403


async def call(mesh: Mesh, to: Sidecar, path: str, status: int, stopped: asyncio.Event) -> int:
    """Call again and again until stopped; every answer has the status. Give the number of answers."""
    client = await mesh.client(to)
    done = 0
    while not stopped.is_set():
        await client.send(get(path))
        assert (await client.message()).status == status
        done += 1
    client.close()
    return done
