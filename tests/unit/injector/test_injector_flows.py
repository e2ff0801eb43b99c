"""Mesh policies and manifests -> who may connect to whom."""

from __future__ import annotations

from typing import Any

import pytest

from injector.flows import Flows, flows
from tests.netpol_meshes import ME, modes, namespace, operation, policy, read, source, workload

ORDERS = f"{ME}/shop/sa/orders"
WEB = f"{ME}/front/sa/web"
BASE = (
    namespace("shop"),
    namespace("front"),
    workload("orders"),
    workload("web", "front"),
    workload("db", ports=(5432,)),
)


def found(*documents: dict[str, Any], base: tuple[dict[str, Any], ...] = BASE) -> Flows:
    return flows(*read(*base, *documents))


def pairs(result: Flows, to: str = "orders") -> dict[str, str]:
    return {each.source.name: str(each.ports) for each in result.pods if each.target.name == to}


def conditional(result: Flows) -> dict[str, bool]:
    return {each.source.name: each.is_conditional for each in result.pods}


def notes(result: Flows) -> str:
    return "\n".join(map(str, result.notes))


# --- who ---


@pytest.mark.parametrize(
    ("rule", "callers"),
    [
        (source(principals=[WEB]), {"web"}),
        (source(principals=["*/ns/front/sa/web"]), {"web"}),
        (source(principals=[f"{ME}/shop/*"]), {"orders", "db"}),
        (source(principals=["other.example/ns/front/sa/web"]), set()),
        (source(namespaces=["front"]), {"web"}),
        (source(namespaces=["sh*"]), {"orders", "db"}),
        (source(serviceAccounts=["db", "front/web"]), {"db", "web"}),
        (source(notNamespaces=["front"]), {"orders", "db"}),
        (source(namespaces=["shop"], notPrincipals=[ORDERS]), {"db"}),
        (source(principals=["*"]), {"orders", "db", "web"}),
        ({}, {"orders", "db", "web"}),
        ({"when": [{"key": "source.namespace", "values": ["front"]}]}, {"web"}),
        ({"when": [{"key": "source.principal", "notValues": [WEB]}]}, {"orders", "db"}),
    ],
    ids=range(13),
)
def test_identities_are_the_workloads_that_have_them(rule: dict[str, Any], callers: set[str]) -> None:
    assert set(pairs(found(policy(rule, app="orders")))) == callers


def test_nothing_is_allowed_where_no_policy_allows() -> None:
    assert found() == Flows(pods=())


def test_a_policy_without_rules_allows_nobody_and_adds_nothing() -> None:
    assert not found(policy()).pods
    assert set(pairs(found(policy(name="none"), policy(source(principals=[WEB]))))) == {"web"}


def test_a_policy_of_the_root_namespace_speaks_to_the_whole_mesh() -> None:
    result = found(policy(source(namespaces=["front"]), place="istio-system"))
    assert {(each.source.name, each.target.name) for each in result.pods} == {
        ("web", name) for name in ("orders", "db", "web")
    }


def test_the_default_of_a_workload_decides_where_no_policy_allows() -> None:
    mesh = (*BASE, workload("bare", ports=(80,), remora_is="x", inject="false"))
    open_one = workload("open", ports=(80,), policy_default="allow-authenticated")
    assert set(pairs(found(open_one, base=mesh), "open")) == {"orders", "web", "db", "open"}
    everybody = found(workload("open", ports=(80,), policy_default="allow-all"), base=mesh)
    assert "bare" in pairs(everybody, "open")
    assert [each.is_everybody for each in everybody.outside] == [True]


@pytest.mark.parametrize("action", ["AUDIT", "ALLOW"])
def test_what_only_watches_opens_and_closes_nothing(action: str) -> None:
    watching = policy({}, action=action)
    watching["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    assert not found(watching).pods
    denying = policy({}, action="DENY")
    denying["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    assert pairs(found(denying, policy(source(principals=[WEB]), name="q")))


def test_a_sidecar_of_another_trust_domain_is_nobody() -> None:
    far = workload("far", "front", trust_domain="far.example")
    assert "far" not in pairs(found(far, policy({}, app="orders")))


# --- DENY ---


def test_a_denied_identity_is_taken_off() -> None:
    allowed, denied = policy({}, app="orders"), policy(source(principals=[WEB]), name="no", action="DENY")
    assert set(pairs(found(allowed, denied))) == {"orders", "db"}


def test_a_denied_port_is_taken_off() -> None:
    mesh = (namespace("shop"), workload("orders", ports=(8080, 9090)))
    rules = policy({}), policy(operation(ports=["9090"]), name="no", action="DENY")
    assert pairs(found(*rules, base=mesh)) == {"orders": "8080"}


def test_a_denial_that_hangs_on_the_request_leaves_the_flow_open_and_is_named() -> None:
    denied = policy({**source(principals=[WEB]), **operation(paths=["/admin*"])}, name="no", action="DENY")
    result = found(policy({}, app="orders"), denied)
    assert conditional(result)["web"] is True
    assert conditional(result)["db"] is False
    assert "policies.yaml:" in notes(result)
    assert "ns[shop]-policy[no]-rule[0]: this DENY rule looks at `paths`, which only a sidecar can" in notes(result)


def test_a_denial_that_looks_at_http_closes_a_port_that_has_none() -> None:
    mesh = (namespace("shop"), workload("db", ports=({"containerPort": 5432, "name": "tcp"},)), workload("orders"))
    denied = policy({**source(principals=[ORDERS]), **operation(methods=["PUT"])}, name="no", action="DENY")
    assert set(pairs(found(policy({}), denied, base=mesh), "db")) == {"db"}
    assert set(pairs(found(policy({}), denied, base=mesh), "orders")) == {"db", "orders"}


# --- to what ---


def test_conditions_of_the_request_make_a_flow_conditional_and_are_named() -> None:
    result = found(policy({**source(principals=[WEB]), **operation(methods=["GET"])}, app="orders"))
    assert conditional(result) == {"web": True}
    assert "this ALLOW rule looks at `methods`" in notes(result)


def test_an_allowing_rule_that_looks_at_http_opens_no_port_that_has_none() -> None:
    mesh = (namespace("shop"), workload("db", ports=({"containerPort": 5432, "name": "tcp"},)))
    assert not found(policy(operation(methods=["GET"])), base=mesh).pods


def test_ports_of_operations_limit() -> None:
    mesh = (namespace("shop"), workload("orders", ports=(8080, 9090, 9091)))
    assert pairs(found(policy(operation(ports=["8080", "9091"])), base=mesh)) == {"orders": "8080,9091"}
    assert pairs(found(policy(operation(notPorts=["8080"])), base=mesh)) == {"orders": "9090-9091"}


def test_a_port_that_a_policy_names_and_no_container_declares_is_captured_too() -> None:
    assert pairs(found(policy(operation(ports=["8080", "9000"]), app="orders")))["web"] == "8080,9000"


def test_without_capture_traffic_arrives_where_the_sidecar_listens() -> None:
    mesh = (namespace("shop"), workload("orders", ports=(8080, 9090), capture="ports"))
    assert pairs(found(policy(operation(ports=["9090", "9999"])), base=mesh)) == {"orders": "15444"}


def test_a_workload_that_declares_nothing_gets_all_that_is_captured_and_is_named() -> None:
    mesh = (namespace("shop"), workload("orders", ports=(), exclude_inbound_ports="1-1023"))
    result = found(policy({}), base=mesh)
    assert pairs(result) == {"orders": "1024-14999,15002-15005,15007-15019,15021-65535"}
    assert "it declares no port" in notes(result)


def test_a_port_that_goes_round_the_sidecar_is_closed_and_named() -> None:
    mesh = (namespace("shop"), workload("orders", ports=(8080, 9090), exclude_inbound_ports="9090"))
    result = found(policy({}), base=mesh)
    assert pairs(result) == {"orders": "8080"}
    assert "deployment shop/orders: port 9090 goes round its sidecar" in notes(result)


def test_a_port_of_udp_is_closed_and_named() -> None:
    mesh = (namespace("shop"), workload("dns", ports=({"containerPort": 53, "protocol": "UDP"}, 8080)))
    result = found(policy({}), base=mesh)
    assert pairs(result, "dns") == {"dns": "8080"}
    assert "port 53/UDP is closed: sidecars carry TCP alone" in notes(result)


# --- plaintext ---

BARE = workload("bare", inject="false")


@pytest.mark.parametrize(
    ("mode", "rule", "callers"),
    [
        ("STRICT", {}, {"orders", "web", "db"}),
        ("PERMISSIVE", {}, {"orders", "web", "db", "bare"}),
        ("PERMISSIVE", source(namespaces=["*"]), {"orders", "web", "db"}),
        ("PERMISSIVE", source(notNamespaces=["front"]), {"orders", "web", "db", "bare"}),
        ("DISABLE", source(namespaces=["*"]), set()),
        ("DISABLE", {}, {"orders", "web", "db", "bare"}),
    ],
    ids=range(6),
)
def test_who_has_no_certificate_comes_only_where_none_is_asked_for(
    mode: str, rule: dict[str, Any], callers: set[str]
) -> None:
    assert set(pairs(found(BARE, modes(mode), policy(rule, app="orders")))) == callers


def test_a_port_with_a_mode_of_its_own_is_a_port_of_its_own() -> None:
    mesh = (namespace("shop"), BARE, workload("orders", ports=()))
    mode = modes("STRICT", selector={"matchLabels": {"app": "orders"}}, portLevelMtls={"80": {"mode": "PERMISSIVE"}})
    assert pairs(found(mode, policy({}), base=mesh))["bare"] == "80"


# --- outside, and what the manifests do not know ---


def outside(result: Flows) -> list[tuple[str, str]]:
    return [(str(each.blocks), str(each.ports)) for each in result.outside]


@pytest.mark.parametrize(
    ("mode", "rules", "blocks"),
    [
        ("STRICT", [source(ipBlocks=["203.0.113.0/24"], notIpBlocks=["203.0.113.7"])],
         "203.0.113.0/24 except 203.0.113.7/32"),
        ("STRICT", [source(remoteIpBlocks=["203.0.113.0/24"])], "203.0.113.0/24"),
        ("STRICT", [{"when": [{"key": "source.ip", "values": ["203.0.113.9"]}]}], "203.0.113.9/32"),
        ("STRICT", [source(ipBlocks=["10.0.0.0/9"]), source(ipBlocks=["10.128.0.0/9"])], "10.0.0.0/8"),
        ("STRICT", [source(ipBlocks=["10.0.0.0/8"], principals=["cluster.local/ns/vm/sa/vm"])], "10.0.0.0/8"),
        ("STRICT", [source(ipBlocks=["10.0.0.0/8"], principals=[WEB])], ""),
        ("STRICT", [source(notIpBlocks=["10.0.0.0/8"])], ""),
        ("STRICT", [{}], ""),
        ("PERMISSIVE", [source(notIpBlocks=["10.0.0.0/8"])], "0.0.0.0/0 except 10.0.0.0/8, ::/0"),
        ("PERMISSIVE", [{}], "0.0.0.0/0, ::/0"),
        ("PERMISSIVE", [source(namespaces=["*"])], ""),
        ("DISABLE", [source(ipBlocks=["10.0.0.0/8"], namespaces=["vm"])], ""),
    ],
    ids=range(12),
)  # fmt: skip
def test_addresses_of_rules_are_who_comes_from_outside(mode: str, rules: list[dict[str, Any]], blocks: str) -> None:
    result = outside(found(modes(mode), policy(*rules, app="orders")))
    assert result == ([(blocks, "8080")] if blocks else [])


def test_denied_addresses_are_taken_off() -> None:
    denied = policy(source(ipBlocks=["10.1.0.0/16"]), name="no", action="DENY")
    in_part = policy(
        {**source(ipBlocks=["10.2.0.0/16"]), **operation(methods=["PUT"])}, name="part", action="DENY", app="orders"
    )
    result = found(policy(source(ipBlocks=["10.0.0.0/8"]), app="orders"), denied, in_part)
    assert outside(result) == [("10.0.0.0/8 except 10.1.0.0/16", "8080")]


def test_a_rule_by_address_lets_no_pod_in_and_one_with_an_identity_lets_that_pod_in() -> None:
    assert not pairs(found(policy(source(ipBlocks=["10.0.0.0/8"]), app="orders")))
    result = found(policy(source(ipBlocks=["10.0.0.0/8"], principals=[WEB]), app="orders"))
    assert conditional(result) == {"web": True}


@pytest.mark.parametrize(
    "rule",
    [source(namespaces=["monitoring"]), source(principals=[f"{ME}/monitoring/sa/*"])],
    ids=["name", "principals"],
)
def test_a_namespace_that_only_policies_know_is_let_in_whole_and_named(rule: dict[str, Any]) -> None:
    result = found(policy(rule, app="orders"))
    assert [(each.namespace, str(each.ports)) for each in result.namespaces] == [("monitoring", "8080")]
    assert "no pod of namespace monitoring is among the manifests: all of its pods are let in" in notes(result)


def test_one_account_of_an_unknown_namespace_is_not_its_whole_namespace() -> None:
    result = found(policy(source(principals=[f"{ME}/monitoring/sa/scraper"]), app="orders"))
    assert result.namespaces == ()
    text = f"`principals` names {ME}/monitoring/sa/scraper, and no pod with a sidecar in the manifests is that"
    assert text in notes(result)


def test_nobody_is_named_as_unknown_who_is_known() -> None:
    assert notes(found(policy(source(principals=[WEB, "*"], notNamespaces=["nowhere"])))) == ""


def test_what_is_no_name_of_a_namespace_is_no_namespace() -> None:
    result = found(policy(source(namespaces=["Not_A_Name"]), app="orders"))
    assert result.namespaces == ()
