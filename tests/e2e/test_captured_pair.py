"""Capture rules in two pods: what applications dial becomes mutual TLS under policy, and they know of nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from authority_process import eventually
from captured_pods import (
    GREETING,
    HTTP,
    OPEN,
    ORDERS,
    ORDERS_6,
    SERVICE,
    SERVICE_6,
    STRANGER,
    STRANGER_6,
    TCP,
    UNNAMED,
    CapturedCluster,
    Greeter,
    captured,
    curl,
)
from injected_pods import WAIT, Application
from pod_network import Space

pytestmark = [pytest.mark.debian, pytest.mark.timeout(180)]

CALLER_ID, ORDERS_ID = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("caller", "orders"))


class Pair:
    """The pods of this file, and what runs in them."""

    def __init__(self, cluster: CapturedCluster) -> None:
        self.cluster = cluster
        self.application: Application = cluster.run_captured()
        self.caller, self.orders = cluster.pods["caller"], cluster.pods["orders"]
        self.open = cluster.serve(self.orders.space, OPEN)
        self.unnamed = cluster.serve(self.orders.space, UNNAMED)
        self.outside = cluster.serve(cluster.stranger, 80)
        self.greeter: Greeter = cluster.greet(self.orders.space, TCP)

    def record(self, pod: str, **wanted: object) -> dict[str, Any]:
        """Wait for a record that has these values and give the last one."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.cluster.pods[pod].lines() if wanted.items() <= each.items()]

        records: list[dict[str, Any]] = eventually(found, f"a record with {wanted}", WAIT)
        return records[-1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with captured(tmp_path_factory.mktemp("pair")) as cluster:
        yield Pair(cluster)


def greeting(space: Space, host: str, port: int, seconds: float = 10) -> str:
    """Connect and hear what a server says first, then what it gives back; "" when it ends or is silent."""

    def ask() -> str:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=seconds) as sock:
            said = sock.recv(100)
            sock.sendall(b"and back")
            return (said + (sock.recv(100) if said else b"")).decode()
        return ""

    return space.inside(ask)


@pytest.mark.parametrize("host", [SERVICE, f"[{SERVICE_6}]", "orders.shop"])
def test_what_an_application_dials_becomes_mutual_tls(pair: Pair, host: str) -> None:
    got = curl(pair.caller.space, f"http://{host}/orders")
    assert (got.status, got.body) == (200, "three orders\n")
    path, headers = pair.application.requests[-1]
    assert path == "/orders"
    assert headers["host"] == host
    assert headers["x-forwarded-client-cert"].endswith(f"URI={CALLER_ID}")
    where = f"[{ORDERS_6}]:{HTTP}" if ":" in host else f"{ORDERS}:{HTTP}"
    record = pair.record("orders", authority=host, path="/orders", response_code=200)
    assert (record["source_principal"], record["downstream_local_address"]) == (CALLER_ID, where)
    sent = pair.record("caller", authority=host, path="/orders", response_code=200)
    assert (sent["direction"], sent["destination_principal"]) == ("outbound", ORDERS_ID)


@pytest.mark.parametrize("service", [SERVICE, f"[{SERVICE_6}]"])
def test_what_no_policy_allows_is_refused_with_its_reason(pair: Pair, service: str) -> None:
    asked = len(pair.application.requests)
    got = curl(pair.caller.space, f"http://{service}/secrets")
    assert (got.status, got.body) == (403, "RBAC: access denied")
    record = pair.record("orders", authority=service, path="/secrets")
    assert (record["reason"], record["source_principal"]) == ("denied_by_policy", CALLER_ID)
    assert len(pair.application.requests) == asked


@pytest.mark.parametrize("host", [SERVICE, f"[{SERVICE_6}]", f"{ORDERS}:{HTTP}", f"[{ORDERS_6}]:{HTTP}"])
def test_a_pod_without_a_sidecar_is_refused_everywhere(pair: Pair, host: str) -> None:
    asked = len(pair.application.requests)
    assert curl(pair.cluster.stranger, f"http://{host}/orders").status == 0
    assert len(pair.application.requests) == asked
    assert pair.record("orders", reason="not_tls")["direction"] == "inbound"


@pytest.mark.parametrize("host", [ORDERS, f"[{ORDERS_6}]"])
def test_a_permissive_port_takes_plaintext_and_policy_still_holds(pair: Pair, host: str) -> None:
    assert curl(pair.cluster.stranger, f"http://{host}:{OPEN}/open").status == 200
    assert curl(pair.cluster.stranger, f"http://{host}:{OPEN}/orders").status == 403
    assert pair.open.requests[-1][0] == "/open"


@pytest.mark.parametrize("service", [SERVICE, f"[{SERVICE_6}]"])
def test_a_port_that_no_manifest_names_is_captured_and_judged_by_its_number(pair: Pair, service: str) -> None:
    assert curl(pair.caller.space, f"http://{service}:99/orders").status == 200
    assert curl(pair.caller.space, f"http://{service}:99/self").status == 403
    _, headers = pair.unnamed.requests[-1]
    assert headers["x-forwarded-client-cert"].endswith(f"URI={CALLER_ID}")


@pytest.mark.parametrize("service", [SERVICE, SERVICE_6])
def test_a_server_that_speaks_first_is_heard(pair: Pair, service: str) -> None:
    assert greeting(pair.caller.space, service, TCP) == f"{GREETING}and back"
    # It sees the sidecar and not the caller.
    assert pair.greeter.peers[-1] == ("::6" if ":" in service else "::ffff:127.0.0.6")
    record = pair.record("orders", protocol="TCP", source_principal=CALLER_ID, reason="ok")
    assert record["downstream_local_address"].endswith(f":{TCP}")


def test_a_server_that_speaks_first_is_not_heard_by_a_stranger(pair: Pair) -> None:
    met = len(pair.greeter.peers)
    assert greeting(pair.cluster.stranger, ORDERS, TCP, seconds=2) == ""
    assert len(pair.greeter.peers) == met


def test_a_pod_of_a_headless_service_is_called_by_its_own_address(pair: Pair) -> None:
    host = ORDERS
    assert curl(pair.caller.space, f"http://{host}:{HTTP}/orders").status == 200
    sent = pair.record("caller", authority=f"{host}:{HTTP}", path="/orders")
    assert sent["destination_principal"] == ORDERS_ID


@pytest.mark.parametrize("host", [f"127.0.0.1:{HTTP}", f"[::1]:{HTTP}"])
def test_loopback_is_not_captured(pair: Pair, host: str) -> None:
    assert curl(pair.orders.space, f"http://{host}/self").status == 200
    assert "x-forwarded-client-cert" not in pair.application.requests[-1][1]


@pytest.mark.parametrize("service", [SERVICE, f"[{SERVICE_6}]"])
def test_a_pod_that_calls_itself_by_its_service_has_its_own_identity(pair: Pair, service: str) -> None:
    assert curl(pair.orders.space, f"http://{service}/self").status == 200
    assert pair.application.requests[-1][1]["x-forwarded-client-cert"].endswith(f"URI={ORDERS_ID}")
    assert curl(pair.orders.space, f"http://{service}/orders").status == 403


@pytest.mark.parametrize("host", [ORDERS, f"[{ORDERS_6}]"])
def test_a_pod_reaches_itself_by_its_own_address(pair: Pair, host: str) -> None:
    assert curl(pair.orders.space, f"http://{host}:{HTTP}/self").status == 200


@pytest.mark.parametrize("host", [STRANGER, f"[{STRANGER_6}]"])
def test_an_address_of_no_service_is_refused_and_the_application_learns_why(pair: Pair, host: str) -> None:
    asked = len(pair.outside.requests)
    got = curl(pair.caller.space, f"http://{host}/orders")
    assert got.status == 502
    assert pair.record("caller", authority=host)["reason"] == "service_unknown"
    assert len(pair.outside.requests) == asked


def test_what_no_rule_has_redirected_is_refused(pair: Pair) -> None:
    assert curl(pair.cluster.stranger, f"http://{ORDERS}:15006/orders").status == 0
    assert curl(pair.caller.space, "http://127.0.0.1:15001/orders").status == 0
    assert pair.record("orders", reason="not_captured")["direction"] == "inbound"
    assert pair.record("caller", reason="not_captured")["direction"] == "outbound"


def test_probes_of_the_kubelet_need_no_identity(pair: Pair) -> None:
    liveness = pair.orders.container["livenessProbe"]
    assert pair.orders.probe(liveness).status == 200
    assert pair.application.requests[-1][0] == "/healthz"
    assert pair.orders.probe(pair.orders.proxy["readinessProbe"]).status == 200


def test_the_admin_page_says_what_is_captured_and_what_is_known_of_ports(pair: Pair) -> None:
    inbound = [each for each in pair.orders.admin("/")["ports"] if each["direction"] == "inbound"]
    assert [(each["listen"], each["port"]) for each in inbound[:1]] == [("[::]:15006", "any")]
    assert {(each["port"], each["protocol"]) for each in inbound[1:]} == {(str(HTTP), "http"), (str(TCP), "tcp")}
