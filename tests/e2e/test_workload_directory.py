"""The workload's facts come from files of the downward API, and its labels are followed while it runs."""

from __future__ import annotations

import pytest
from mesh import Mesh, Sidecar, eventually, free_port, get
from mesh_streams import Message

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: blue, namespace: demo}
spec:
  selector: {matchLabels: {color: blue}}
  action: ALLOW
  rules: [{}]
"""


def write(mesh: Mesh, **facts: str) -> str:
    directory = mesh.directory / "pod"
    directory.mkdir(exist_ok=True)
    for name, text in facts.items():
        (directory / name).with_suffix(".new").write_text(text)
        (directory / name).with_suffix(".new").replace(directory / name)
    return str(directory)


async def asked(mesh: Mesh, orders: Sidecar) -> Message:
    client = await mesh.client(orders)
    await client.send(get())
    message = await client.message()
    client.close()
    return message


@pytest.mark.asyncio
async def test_policies_select_by_the_labels_of_the_moment(mesh: Mesh) -> None:
    directory = write(mesh, name="orders-1", namespace="demo", labels='app="orders"\n')
    workload = {"directory": directory, "service_account": "orders"}
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=POLICIES, workload=workload)
    assert orders.app.config.workload.name == "orders-1"
    assert str(orders.app.sidecar.identity) == "spiffe://cluster.local/ns/demo/sa/orders"
    assert (await asked(mesh, orders)).status == 403
    write(mesh, labels='app="orders"\ncolor="blue"\n')
    await eventually(lambda: orders.app.config.workload.labels.get("color") == "blue", seconds=3)
    assert (await asked(mesh, orders)).status == 200
    write(mesh, labels='app="orders"\n')
    await eventually(lambda: "color" not in orders.app.config.workload.labels, seconds=3)
    assert (await asked(mesh, orders)).status == 403


@pytest.mark.asyncio
async def test_broken_labels_change_nothing_and_are_named(mesh: Mesh) -> None:
    directory = write(mesh, name="orders-1", namespace="demo", labels='color="blue"\n')
    workload = {"directory": directory, "service_account": "orders"}
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=POLICIES, workload=workload)
    write(mesh, labels="nonsense\n")
    await eventually(lambda: "config" in orders.app.readiness.rejected, seconds=3)
    [sentence] = orders.app.readiness.rejected["config"]
    assert f"{directory}/labels:1:1" in sentence
    assert (await asked(mesh, orders)).status == 200


@pytest.mark.asyncio
async def test_a_name_that_changes_is_named_and_needs_a_restart(mesh: Mesh) -> None:
    directory = write(mesh, name="orders-1", namespace="demo", labels="")
    workload = {"directory": directory, "service_account": "orders"}
    orders = await mesh.sidecar("orders", app=await mesh.backend(), workload=workload)
    write(mesh, name="orders-2", labels='color="blue"\n')
    await eventually(lambda: orders.app.config.workload.labels == {"color": "blue"}, seconds=3)
    assert orders.app.config.workload.name == "orders-1"


@pytest.mark.asyncio
async def test_without_its_files_it_ends_with_a_sentence(mesh: Mesh) -> None:
    workload = {"directory": str(mesh.directory / "nowhere"), "service_account": "orders"}
    orders = await mesh.process("orders", ready=False, workload=workload)
    assert await orders.ended() == 2
    assert "nowhere: the directory of the downward API cannot be read: No such file" in orders.output


@pytest.mark.asyncio
async def test_workers_follow_the_labels_too(mesh: Mesh) -> None:
    directory = write(mesh, name="orders-1", namespace="demo", labels='app="orders"\n')
    orders = await mesh.process(
        "orders",
        app=await mesh.backend(),
        policies=POLICIES,
        workload={"directory": directory, "service_account": "orders"},
        runtime={"workers": 2, "watch_interval": "0.05s"},
        admin={"listen": f"127.0.0.1:{free_port()}"},
    )

    async def status() -> int:
        client = await mesh.client(orders)
        await client.send(get())
        found = (await client.message()).status
        client.close()
        return found

    assert await status() == 403
    write(mesh, labels='color="blue"\n')
    for _ in range(200):
        if [await status() for _ in range(4)] == [200] * 4:
            return
    pytest.fail("some worker does not see the new labels")
