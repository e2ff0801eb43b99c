"""Istio's labels: both ends by what is known of them, in Istio's order, `unknown` for the rest."""

from __future__ import annotations

import pytest

from certs.spiffe import SpiffeId
from proxy.config import load_config
from proxy.telemetry.naming import LABELS, OTHER, TCP_LABELS, Edge, End, Naming

CONFIG = """
workload: {namespace: demo, service_account: orders, name: orders-v2, labels: %s}
identity: {files: {directory: /identity}}
policy: {directory: /policy}
outbound:
  services:
    - {name: ledger, hosts: [ledger, ledger.books.svc.cluster.local, ledger.books], endpoints: ["10.0.0.1:1"],
       identities: ["spiffe://cluster.local/ns/other/sa/ledger"]}
    - {name: short, hosts: [short.demo], endpoints: ["10.0.0.1:1"],
       identities: ["spiffe://cluster.local/ns/demo/sa/a", "spiffe://cluster.local/ns/demo/sa/b"]}
    - {name: spread, endpoints: ["10.0.0.1:1"],
       identities: ["spiffe://cluster.local/ns/one/sa/a", "spiffe://cluster.local/ns/two/sa/a"]}
    - {name: foreign, endpoints: ["10.0.0.1:1"], identities: ["spiffe://cluster.local/a"]}
    - {name: plain, hosts: [api.example.com], endpoints: ["10.0.0.1:1"], tls: none}
"""
PEER = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")


def naming(labels: str = "{app: orders, version: v2}") -> Naming:
    return Naming.of(load_config((CONFIG % labels).encode(), "sidecar.yaml"))


def service(name: str) -> Edge:
    return naming().edge("outbound", f"outbound|{name}")


def test_the_request_labels_are_istios_in_istios_order() -> None:
    edge = naming().edge("inbound", "inbound|8080")
    labels = edge.labels(PEER, protocol="http", status=200, flags="-")
    assert list(labels.items()) == [
        ("reporter", "destination"),
        ("source_workload", "unknown"),
        ("source_canonical_service", "unknown"),
        ("source_canonical_revision", "latest"),
        ("source_workload_namespace", "shop"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/web"),
        ("source_app", "unknown"),
        ("source_version", "unknown"),
        ("source_cluster", "unknown"),
        ("destination_workload", "orders-v2"),
        ("destination_workload_namespace", "demo"),
        ("destination_principal", "spiffe://cluster.local/ns/demo/sa/orders"),
        ("destination_app", "orders"),
        ("destination_version", "v2"),
        ("destination_service", "unknown"),
        ("destination_canonical_service", "orders"),
        ("destination_canonical_revision", "v2"),
        ("destination_service_name", "orders"),
        ("destination_service_namespace", "demo"),
        ("destination_cluster", "unknown"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
    ]
    assert tuple(labels) == LABELS


def test_outbound_we_are_the_source() -> None:
    labels = service("ledger").labels(PEER, protocol="http", status=503, flags="UF")
    assert (labels["reporter"], labels["source_workload"]) == ("source", "orders-v2")
    assert labels["source_principal"] == "spiffe://cluster.local/ns/demo/sa/orders"
    assert (labels["destination_workload"], labels["destination_workload_namespace"]) == ("unknown", "shop")
    assert labels["destination_principal"] == str(PEER)
    assert labels["destination_service"] == "ledger.books.svc.cluster.local"
    assert (labels["response_code"], labels["response_flags"]) == ("503", "UF")
    assert labels["connection_security_policy"] == "unknown"


def test_a_connection_has_neither_code_nor_grpc_status() -> None:
    labels = service("ledger").labels(PEER, protocol="tcp", status=None, flags="-")
    assert tuple(labels) == TCP_LABELS
    assert set(LABELS) - set(TCP_LABELS) == {"response_code", "grpc_response_status"}
    assert labels["request_protocol"] == "tcp"


@pytest.mark.parametrize(
    ("name", "host", "namespace"),
    [
        ("ledger", "ledger.books.svc.cluster.local", "books"),
        ("short", "short.demo", "demo"),
        ("spread", "spread", "unknown"),
        ("foreign", "foreign", "unknown"),
        ("plain", "api.example.com", "unknown"),
    ],
)
def test_a_service_is_named_by_its_longest_host_and_lies_where_that_or_its_accounts_say(
    name: str, host: str, namespace: str
) -> None:
    edge = service(name)
    assert (edge.service, edge.service_name, edge.service_namespace) == (host, name, namespace)


def test_without_mutual_tls_nobody_has_a_principal() -> None:
    labels = service("plain").labels(None, protocol="http", status=200, flags="-")
    assert (labels["source_principal"], labels["destination_principal"]) == ("unknown", "unknown")
    inbound = naming().edge("inbound", "inbound|8080").labels(None, protocol="http", status=200, flags="-")
    assert (inbound["source_principal"], inbound["connection_security_policy"]) == ("unknown", "none")


def test_a_peer_of_no_kubernetes_account_has_a_principal_and_no_namespace() -> None:
    peer = SpiffeId.parse("spiffe://cluster.local/vm/7")
    labels = service("ledger").labels(peer, protocol="http", status=200, flags="-")
    assert labels["destination_principal"] == "spiffe://cluster.local/vm/7"
    assert labels["destination_workload_namespace"] == "unknown"


def test_peers_that_share_a_set_are_other() -> None:
    labels = naming().edge("inbound", "inbound|1").labels(OTHER, protocol="http", status=200, flags="-")
    assert (labels["source_principal"], labels["source_workload_namespace"]) == ("other", "other")
    assert labels["connection_security_policy"] == "mutual_tls"


@pytest.mark.parametrize(
    ("labels", "canonical", "app"),
    [
        ("{}", ("orders-v2", "latest"), ("unknown", "unknown")),
        ("{app: a, version: '1'}", ("a", "1"), ("a", "1")),
        ("{app: a, app.kubernetes.io/name: b, app.kubernetes.io/version: '2'}", ("b", "2"), ("a", "unknown")),
        (
            "{app.kubernetes.io/name: b, service.istio.io/canonical-name: c, service.istio.io/canonical-revision: r}",
            ("c", "r"),
            ("unknown", "unknown"),
        ),
    ],
)
def test_our_canonical_name_follows_istios_order_of_labels(
    labels: str, canonical: tuple[str, str], app: tuple[str, str]
) -> None:
    own = naming(labels).edge("inbound", "inbound|8080").own
    assert (own.canonical_service, own.canonical_revision) == canonical
    assert (own.app, own.version) == app


def test_the_same_configuration_read_again_gives_equal_edges() -> None:
    assert naming().edge("inbound", "inbound|1") == naming().edge("inbound", "inbound|2")
    assert service("ledger") == service("ledger")
    assert service("ledger") != service("short")


def test_a_service_that_the_configuration_no_longer_has_keeps_its_name() -> None:
    edge = service("gone")
    assert (edge.service, edge.service_name, edge.service_namespace) == ("gone", "gone", "unknown")


def test_of_an_unknown_end_everything_is_unknown() -> None:
    end = End()
    assert {end.workload, end.canonical_service, end.namespace, end.principal, end.app, end.version} == {"unknown"}
