"""What annotations take out of capture, and what they let through."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from authority_process import eventually
from captured_pods import (
    GREETING,
    HTTP,
    ORDERS,
    POLICY,
    SERVICE,
    SERVICE_6,
    STRANGER,
    STRANGER_6,
    TCP,
    CapturedCluster,
    annotated,
    captured,
    curl,
)
from injected_pods import WAIT
from pod_network import NODE, Space

pytestmark = [pytest.mark.debian, pytest.mark.timeout(180)]


def hear(space: Space, host: str, port: int) -> str:
    """Connect and read what the other side says first."""

    def ask() -> str:
        with socket.create_connection((host, port), timeout=10) as sock:
            return sock.recv(100).decode()

    return space.inside(ask)


def test_calls_to_no_known_service_pass_through_as_they_are(tmp_path: Path) -> None:
    with captured(tmp_path, annotated("caller", unknown_outbound="passthrough")) as cluster:
        cluster.run_captured()
        outside, greeter = cluster.serve(cluster.stranger, 80), cluster.greet(cluster.stranger, TCP)
        caller = cluster.pods["caller"]
        for host in (STRANGER, f"[{STRANGER_6}]"):
            assert curl(caller.space, f"http://{host}/orders").status == 200
            assert "x-forwarded-client-cert" not in outside.requests[-1][1]
        assert hear(caller.space, STRANGER, TCP) == GREETING
        assert greeter.peers[-1].endswith(caller.address)

        def passed() -> set[str]:
            passing = (each for each in caller.lines() if each["upstream_cluster"] == "outbound|PassthroughCluster")
            return {each["downstream_local_address"] for each in passing}

        dialled = {f"{STRANGER}:80", f"[{STRANGER_6}]:80"}
        eventually(lambda: passed() >= dialled, "what passed is recorded with where it was going", WAIT)
        # What is known is still called as itself, and nothing is refused that dials it.
        assert curl(caller.space, f"http://{SERVICE}/orders").status == 200
        assert caller.records()[-1]["destination_principal"].endswith("/sa/orders")


def test_excluded_ports_ranges_and_dns_go_past_the_sidecar(tmp_path: Path) -> None:
    manifests = annotated("caller", exclude_outbound_ports="81", exclude_outbound_ip_ranges=f"{STRANGER_6}/128")
    with captured(tmp_path, manifests) as cluster:
        cluster.run_captured()
        caller = cluster.pods["caller"]
        servers = {port: cluster.serve(cluster.stranger, port) for port in (53, 80, 81)}
        assert curl(caller.space, f"http://{STRANGER}:81/orders").status == 200
        assert curl(caller.space, f"http://{STRANGER}:53/orders").status == 200
        assert curl(caller.space, f"http://[{STRANGER_6}]/orders").status == 200
        assert curl(caller.space, f"http://{STRANGER}/orders").status == 502
        assert [len(server.requests) for server in servers.values()] == [1, 1, 1]
        assert [each["authority"] for each in caller.records()] == [STRANGER], "the sidecar saw nothing else"


def test_udp_is_nobodys_business(tmp_path: Path) -> None:
    with captured(tmp_path) as cluster:
        cluster.run_captured()
        with cluster.node.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as resolver:
            resolver.settimeout(10)
            resolver.bind((NODE, 53))
            with cluster.pods["caller"].space.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
                sock.settimeout(10)
                sock.sendto(b"who is orders?", (NODE, 53))
                asked, peer = resolver.recvfrom(100)
                resolver.sendto(b"nobody", peer)
                assert (asked, sock.recv(100)) == (b"who is orders?", b"nobody")


def test_an_excluded_inbound_port_is_reached_without_identity_and_no_other(tmp_path: Path) -> None:
    with captured(tmp_path, annotated("orders", exclude_inbound_ports=str(HTTP))) as cluster:
        cluster.run_captured()
        cluster.serve(cluster.pods["orders"].space, 9000)
        assert curl(cluster.stranger, f"http://{ORDERS}:{HTTP}/secrets").status == 200
        assert curl(cluster.stranger, f"http://{ORDERS}:9000/orders").status == 0


def test_more_workers_than_one_take_captured_connections(tmp_path: Path) -> None:
    with captured(tmp_path, annotated("orders", workers="2")) as cluster:
        cluster.run_captured()
        space = cluster.pods["caller"].space
        for _ in range(4):
            assert curl(space, f"http://{SERVICE}/orders").status == 200
            assert curl(space, f"http://[{SERVICE_6}]/secrets").status == 403


def test_services_that_are_generated_anew_are_followed(tmp_path: Path) -> None:
    with captured(tmp_path) as cluster:
        cluster.run_captured()
        caller = cluster.pods["caller"]
        assert curl(caller.space, f"http://{SERVICE}/orders").status == 200
        known = cluster.services()
        cluster.mount(policy={"policy.yaml": POLICY}, services={})
        eventually(lambda: curl(caller.space, f"http://{SERVICE}/orders").status == 502, "it is gone", WAIT)
        cluster.mount(policy={"policy.yaml": POLICY}, services=known)
        eventually(lambda: curl(caller.space, f"http://{SERVICE}/orders").status == 200, "it is back", WAIT)


def test_the_mode_is_changed_by_a_new_configuration_without_a_restart(tmp_path: Path) -> None:
    with captured(tmp_path) as cluster:
        _change_modes(cluster)


def _change_modes(cluster: CapturedCluster) -> None:
    cluster.run_captured()
    caller, orders = cluster.pods["caller"], cluster.pods["orders"]
    assert curl(caller.space, f"http://{SERVICE}/orders").status == 200
    captures = orders.document["metadata"]["annotations"]
    before = captures["remora.io/sidecar-config"]
    ports = f"mode: ports\n  ports: [{{listen: '[::]:15443', port: {HTTP}, protocol: http}}]\n"
    section = before[before.index("inbound:") : before.index("outbound:")]
    captures["remora.io/sidecar-config"] = before.replace(section, f"inbound:\n  {ports}")
    maps = {"policy": {"policy.yaml": POLICY}, "services": cluster.services()}
    cluster.mount(**maps)
    eventually(lambda: curl(cluster.stranger, f"http://{ORDERS}:{HTTP}/orders").code == 7, "15006 is closed", WAIT)
    # The rules still lead to 15006, where nobody is: closed, and not open.
    assert curl(caller.space, f"http://{SERVICE}/orders").status == 503
    captures["remora.io/sidecar-config"] = before
    cluster.mount(**maps)
    eventually(lambda: curl(caller.space, f"http://{SERVICE}/orders").status == 200, "it captures again", WAIT)
    assert orders.process is not None
    assert orders.process.poll() is None
