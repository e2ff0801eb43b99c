"""A thousand policy swaps under load: every decision fits the generation that it names; no half of two sets shows."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Mesh, get, loop_name, policy

from certs.store import publish

SWAPS = 1_000
# Two documents that must change together: with half of each, both paths would be allowed or both denied.
RED = {
    "a.yaml": policy("a", '[{to: [{operation: {paths: ["/red"]}}]}]').encode(),
    "b.yaml": policy("b", '[{to: [{operation: {paths: ["/blue"]}}]}]', action="DENY").encode(),
}
BLUE = {
    "a.yaml": policy("a", '[{to: [{operation: {paths: ["/blue"]}}]}]').encode(),
    "b.yaml": policy("b", '[{to: [{operation: {paths: ["/red"]}}]}]', action="DENY").encode(),
}


@pytest.mark.asyncio
@pytest.mark.timeout(180)
async def test_a_thousand_swaps_under_load(mesh: Mesh) -> None:
    backend = await mesh.backend()
    directory = mesh.directory / "mounted"
    directory.mkdir()
    publish(directory, RED)
    orders = await mesh.sidecar(
        "orders",
        app=backend,
        policies=None,
        policy={"directory": str(directory)},
        runtime={"watch_interval": "60s", "loop": loop_name()},
    )
    sidecar = orders.app.sidecar
    colour_of = {sidecar.policy_generation: "red"}
    stop = False

    async def load(path: str) -> int:
        client = await mesh.client(orders)
        done = 0
        while not stop:
            await client.send(get(path))
            answer = await client.message()
            assert answer.status in (200, 403)
            done += 1
            if answer.get("connection") == b"close":  # it was asked for under a policy that would deny it now
                client.close()
                client = await mesh.client(orders)
        return done

    callers = [asyncio.ensure_future(load(path)) for path in ("/red", "/blue")]
    source = next(source for source in orders.app.mounts.sources if source.kind == "policy")
    for swap in range(SWAPS):
        colour = ("blue", "red")[swap % 2]
        publish(directory, BLUE if colour == "blue" else RED)
        assert source.look(first=False) is None  # what the watcher does at every interval: two looks alike
        act = source.look(first=False)
        assert act is not None
        act()
        colour_of[sidecar.policy_generation] = colour
        await asyncio.sleep(0.002)
    stop = True
    served = await asyncio.gather(*callers)
    assert min(served) > SWAPS / 10
    records = await orders.records(sum(served), kind="request")
    for record in records:
        expected = "allow" if record["path"] == "/" + colour_of[record["generation"]] else "deny"
        assert record["decision"] == expected, record
    assert len({record["generation"] for record in records}) > SWAPS / 20
