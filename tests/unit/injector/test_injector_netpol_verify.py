"""Existing NetworkPolicies beside mesh policies: holes, missing ways, dead rules, and what nobody can judge."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from injector.netpol import Options, generate
from injector.netpol_read import read_network_policies
from injector.netpol_verify import Verified, verify
from injector.yaml_text import dump
from tests.netpol_meshes import ME, modes, namespace, operation, policy, read, source, workload

WEB = f"{ME}/front/sa/web"
FRONT = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "front"}}}
WEB_POD = {**FRONT, "podSelector": {"matchLabels": {"app": "web"}}}
DNS_PORTS = [{"port": 53, "protocol": "UDP"}, {"port": 53}]
BASE = (
    namespace("shop"),
    namespace("front"),
    workload("orders", ports=({"containerPort": 8080, "name": "http"},)),
    workload("web", "front"),
    workload("db", ports=(5432,)),
)
ALLOWED = policy(source(principals=[WEB]), app="orders")


def network_policy(name: str, place: str = "shop", app: str = "", **spec: Any) -> dict[str, Any]:
    pods: dict[str, Any] = {"matchLabels": {"app": app}} if app else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": place},
        "spec": {"podSelector": pods, **spec},
    }


def into_orders(*peers: dict[str, Any], ports: Any = ({"port": 8080},)) -> dict[str, Any]:
    rule = {"from": list(peers)} if peers else {}
    return network_policy("x", app="orders", ingress=[{**rule, **({"ports": list(ports)} if ports else {})}])


def out_of_orders(*peers: dict[str, Any], ports: Any = ()) -> dict[str, Any]:
    rule = {**({"to": list(peers)} if peers else {}), **({"ports": list(ports)} if ports else {})}
    return network_policy("x", app="orders", policyTypes=["Egress"], egress=[rule])


def judged(
    *documents: dict[str, Any],
    existing: tuple[dict[str, Any], ...] = (),
    without: tuple[str, ...] = (),
    base: tuple[dict[str, Any], ...] = BASE,
    options: Options | None = None,
) -> Verified:
    """Verify what is generated for a mesh, less policies by their names, with further ones in `np.yaml`."""
    mesh, policies = read(*base, *documents)
    made = generate(mesh, policies, options or Options()).documents
    kept = [each for each in made if each["metadata"]["name"] not in without]  # type: ignore[index]
    files = {name: "---\n".join(map(dump, each)).encode() for name, each in (("g.yaml", kept), ("np.yaml", existing))}
    return verify(mesh, policies, read_network_policies(files), options or Options())


def lines(result: Verified) -> list[str]:
    return [str(each) for each in result.findings]


# --- what says the same is clean ---


@pytest.mark.parametrize(
    "documents",
    [
        (),
        (ALLOWED,),
        (policy({}),),
        (policy(source(namespaces=["front"])),),
        (policy(source(namespaces=["monitoring"])),),
        (policy(source(principals=["*"])), policy(source(principals=[WEB]), name="no", action="DENY")),
        (policy(source(ipBlocks=["10.0.0.0/8"], notIpBlocks=["10.1.0.0/16"])), modes("PERMISSIVE")),
        (policy({**source(principals=[WEB]), **operation(ports=["9090"], methods=["GET"])}, app="orders"),),
        (workload("same", labels={"app": "db"}, ports=(80,)), policy(source(principals=[WEB]), app="db")),
        (workload("bare", inject="false"), modes("PERMISSIVE"), policy({})),
        (workload("open", policy_default="allow-all"), workload("none", ports=())),
        (workload("narrow", capture="ports"), policy(source(namespaces=["shop"]))),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("options", [Options(), Options(metrics_from=("monitoring", "front"))], ids=["", "scraped"])
def test_what_was_generated_is_clean(documents: tuple[dict[str, Any], ...], options: Options) -> None:
    assert lines(judged(*documents, options=options)) == []


@pytest.mark.parametrize(
    "recipe",
    [
        network_policy("default-deny", policyTypes=["Ingress", "Egress"]),
        into_orders(WEB_POD),
        into_orders(WEB_POD, ports=()),
        into_orders(WEB_POD, ports=[{"port": "http"}]),
        into_orders(FRONT),
        network_policy("dns", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}], "ports": DNS_PORTS}]),
        network_policy("dns", policyTypes=["Egress"], egress=[{"ports": DNS_PORTS}]),
        out_of_orders({"ipBlock": {"cidr": "0.0.0.0/0"}}, ports=[{"port": 443}]),
    ],
    ids=range(8),
)
def test_recipes_as_people_write_them_are_clean(recipe: dict[str, Any]) -> None:
    assert lines(judged(ALLOWED, existing=(recipe,))) == []


def test_a_rule_for_every_namespace_is_clean_where_every_identity_may_call() -> None:
    anybody = policy(source(principals=["*"]), app="orders")
    assert lines(judged(anybody, existing=(into_orders({"namespaceSelector": {}}),))) == []


# --- holes ---


def test_a_pod_that_no_policy_selects_is_a_hole_in_each_direction() -> None:
    found = judged(ALLOWED, base=BASE[2:3] + BASE[:1], without=("default-deny-all", "allow-dns", "orders-egress"))
    assert lines(found) == [
        "mesh.yaml:1: hole: deployment shop/orders: no NetworkPolicy closes its ingress: everybody may connect to it; "
        "add a default deny to namespace shop: a NetworkPolicy with `podSelector: {}` and `policyTypes: [Ingress]`",
        "mesh.yaml:1: hole: deployment shop/orders: no NetworkPolicy closes its egress: it may connect to everybody; "
        "add a default deny to namespace shop: a NetworkPolicy with `podSelector: {}` and `policyTypes: [Egress]`",
    ]


@pytest.mark.parametrize(
    ("existing", "line", "way"),
    [
        (into_orders({"podSelector": {"matchLabels": {"app": "db"}}}), 11, "shop/db into shop/orders at port 8080/TCP"),
        (
            into_orders({"podSelector": {"matchLabels": {"app": "db"}}}, ports=[{"port": "http"}]),
            11,
            "shop/db into shop/orders at port 8080/TCP",
        ),
        (
            into_orders({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}}),
            11,
            "shop/db, shop/orders into shop/orders at port 8080/TCP",
        ),
        (into_orders(ports=()), 11, "into shop/orders at every port"),
        (
            into_orders({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
            11,
            "addresses 10.0.0.0/8 except 10.1.0.0/16 into shop/orders at port 8080/TCP",
        ),
        (
            into_orders({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stage"}}}),
            11,
            "other pods of stage into shop/orders at port 8080/TCP",
        ),
        (
            out_of_orders({"podSelector": {}}, ports=[{"port": 5432}]),
            13,
            "shop/orders out to shop/db, shop/orders at port 5432/TCP",
        ),
        (out_of_orders({"podSelector": {"matchLabels": {"app": "db"}}}), 13, "out to shop/db at every port"),
    ],
    ids=range(8),
)
def test_what_is_open_and_denied_whatever_is_asked_is_a_hole(existing: dict[str, Any], line: int, way: str) -> None:
    found = lines(judged(ALLOWED, existing=(existing,)))
    assert len(found) == 1
    assert found[0].startswith(f"np.yaml:{line}: hole: networkpolicy shop/x: it lets ")
    assert f"{way}, which the mesh denies whatever is asked; " in found[0]


def test_a_rule_for_every_namespace_lets_in_pods_that_nobody_names() -> None:
    [hole] = lines(
        judged(policy(source(namespaces=["shop", "front"])), existing=(into_orders({"namespaceSelector": {}}),))
    )
    assert "pods of any other namespace" in hole
    assert "front/web" not in hole


def test_ports_that_the_mesh_does_not_allow_are_a_hole_of_a_rule_without_ports() -> None:
    narrow = policy({**source(principals=[WEB]), **operation(ports=["8080"])}, app="orders")
    [hole] = lines(judged(narrow, existing=(into_orders(WEB_POD, ports=()),)))
    assert "front/web, other pods of front into" not in hole
    assert "front/web into shop/orders at every port but 8080/TCP" in hole


@pytest.mark.parametrize(
    ("existing", "mend"),
    [
        (into_orders({"podSelector": {}}), "narrow its peers, so that these are none of them, or allow it by"),
        (into_orders(), "name its peers by `from`: without, it is everybody, or allow it by"),
        (out_of_orders(ports=[{"port": 5432}]), "name its peers by `to`: without, it is everybody, or allow it by"),
        (
            into_orders(WEB_POD, ports=[{"port": 8080, "endPort": 8090}]),
            "open port 8080/TCP alone by `ports`, or allow it by",
        ),
    ],
    ids=range(4),
)
def test_the_mend_of_a_hole_says_what_to_narrow(existing: dict[str, Any], mend: str) -> None:
    narrow = policy({**source(principals=[WEB]), **operation(ports=["8080"])}, app="orders")
    assert {each.mend for each in judged(narrow, existing=(existing,)).findings} == {f"{mend} an AuthorizationPolicy"}


def test_without_capture_the_application_s_own_port_is_a_way_past_the_sidecar() -> None:
    base = (*BASE[:2], workload("orders", capture="ports"), workload("web", "front"))
    [hole] = lines(judged(ALLOWED, base=base, existing=(into_orders(WEB_POD),)))
    assert "front/web into shop/orders at port 8080/TCP" in hole
    assert lines(judged(ALLOWED, base=base, existing=(into_orders(WEB_POD, ports=[{"port": 15443}]),))) == []
    excluding = workload("orders", capture="ports", exclude_inbound_ports="8080")
    assert lines(judged(ALLOWED, base=(*base[:2], excluding, base[3]), existing=(into_orders(WEB_POD),))) == [hole]


def test_a_port_that_goes_round_the_sidecar_is_no_hole() -> None:
    base = (*BASE[:2], workload("orders", ports=(8080, 9090), exclude_inbound_ports="9090"), workload("web", "front"))
    assert lines(judged(base=base, existing=(into_orders({"podSelector": {}}, ports=[{"port": 9090}]),))) == []


def test_what_a_request_decides_is_no_hole() -> None:
    by_path = policy({**source(principals=[WEB]), **operation(paths=["/admin"])}, name="no", action="DENY")
    assert lines(judged(ALLOWED, by_path, existing=(into_orders(WEB_POD),))) == []
    whole = policy(source(principals=[WEB]), name="no", action="DENY")
    assert len(lines(judged(ALLOWED, whole, existing=(into_orders(WEB_POD),)))) == 1


def test_a_way_to_dns_is_a_hole_where_a_pod_with_a_sidecar_answers_there() -> None:
    names = workload("names", ports=(53,))
    to_all = out_of_orders({"podSelector": {}}, ports=[{"port": 53}])
    [hole] = lines(judged(ALLOWED, names, existing=(to_all,)))
    assert "shop/orders out to shop/names at port 53/TCP" in hole


def test_a_rule_without_ports_is_clean_where_every_address_may_come() -> None:
    everywhere = policy(source(ipBlocks=["0.0.0.0/0", "::/0"]), app="orders"), modes("PERMISSIVE")
    assert lines(judged(*everywhere, existing=(into_orders(ports=()),))) == []


def test_a_pattern_that_means_some_namespaces_does_not_mean_all() -> None:
    some = policy(source(namespaces=["q*", "shop", "front"]), app="orders")
    [hole] = lines(judged(some, existing=(into_orders({"namespaceSelector": {}}),)))
    assert "pods of any other namespace" in hole


def test_addresses_count_at_the_ports_for_which_they_are_allowed() -> None:
    at_one = policy({**source(ipBlocks=["10.0.0.0/8"]), **operation(ports=["8080"])}, app="orders"), modes("PERMISSIVE")
    wide = into_orders({"ipBlock": {"cidr": "10.0.0.0/8"}}, ports=[{"port": 8080, "endPort": 8090}])
    [hole] = lines(judged(*at_one, existing=(wide,)))
    assert "addresses 10.0.0.0/8 into shop/orders at ports 8081-8090/TCP" in hole


# --- missing ways ---


@pytest.mark.parametrize(
    ("without", "finding"),
    [
        (
            ("orders-ingress",),
            "mesh.yaml:3: missing: deployment shop/orders: its ingress from front/web at port 8080/TCP",
        ),
        (("web-egress",), "mesh.yaml:4: missing: deployment front/web: its egress to shop/orders at port 8080/TCP"),
        (
            ("db-egress",),
            "mesh.yaml:5: missing: deployment shop/db: its egress to app.kubernetes.io/name=remora-authority in "
            "remora-system at port 8443/TCP",
        ),
        (("allow-dns",), "mesh.yaml:5: missing: deployment shop/db: its egress to DNS in kube-system at port 53/UDP"),
    ],
)
def test_what_is_allowed_and_closed_is_missing_on_its_side(without: tuple[str, ...], finding: str) -> None:
    found = [each for each in lines(judged(ALLOWED, without=without)) if each.startswith(finding)]
    assert len(found) == 1
    assert "is allowed by the mesh and closed here; add to `" in found[0]


def test_an_address_that_is_allowed_and_closed_is_missing() -> None:
    outside = policy(source(ipBlocks=["10.0.0.0/8"]), app="orders"), modes("PERMISSIVE")
    narrow = into_orders({"ipBlock": {"cidr": "10.0.0.0/9"}})
    found = lines(judged(*outside, without=("orders-ingress",), existing=(narrow,)))
    assert [each.split(" is ")[0] for each in found] == [
        "mesh.yaml:3: missing: deployment shop/orders: its ingress from addresses 10.128.0.0/9 at port 8080/TCP"
    ]


@pytest.mark.parametrize(
    "peer",
    [
        {"namespaceSelector": {"matchLabels": {"name": "kube-system"}}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns", "tier": "core"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    ],
    ids=["label", "pods", "more", "node"],
)
def test_dns_is_open_where_the_servers_may_be_meant(peer: dict[str, Any]) -> None:
    dns = [
        network_policy("dns", place, policyTypes=["Egress"], egress=[{"to": [peer], "ports": DNS_PORTS}])
        for place in ("shop", "front")
    ]
    assert lines(judged(ALLOWED, without=("allow-dns",), existing=tuple(dns))) == []


def test_the_mend_of_a_missing_way_is_a_rule_that_mends_it() -> None:
    for without in ("orders-ingress", "web-egress", "allow-dns"):
        broken = judged(ALLOWED, without=(without,))
        added: list[dict[str, Any]] = []
        for finding in broken.findings:
            place, name = finding.subject.removeprefix("deployment ").split("/")
            key, rule = re.fullmatch(
                r"add to `(\w+)` of a policy that selects it: (.*)", finding.mend, re.DOTALL
            ).groups()  # type: ignore[union-attr]
            added.append(
                network_policy(f"m{len(added)}", place, name, policyTypes=[key.title()], **{key: [json.loads(rule)]})
            )
        assert added
        assert lines(judged(ALLOWED, without=(without,), existing=tuple(added))) == []


def test_a_namespace_that_is_let_in_whole_and_closed_is_missing() -> None:
    scraped = policy(source(namespaces=["monitoring"]), app="orders")
    found = lines(judged(scraped, without=("orders-ingress",)))
    assert [each.split(" is ")[0] for each in found] == [
        "mesh.yaml:3: missing: deployment shop/orders: its ingress from other pods of monitoring at port 8080/TCP"
    ]


# --- dead rules ---


@pytest.mark.parametrize(
    ("existing", "place", "text"),
    [
        (network_policy("x", app="gone"), 1, "its `podSelector` (app=gone) takes no pod of the manifests"),
        (
            into_orders({"podSelector": {"matchLabels": {"app": "web"}}}),
            11,
            "this `ingress` rule opens nothing: no pod of the manifests is one of its peers (podSelector app=web)",
        ),
        (
            into_orders({"namespaceSelector": {"matchLabels": {"name": "front"}}}),
            11,
            "no pod of the manifests is one of its peers (namespaceSelector name=front)",
        ),
        (
            into_orders(WEB_POD, ports=[{"port": "grpc"}]),
            11,
            "this `ingress` rule opens nothing: no pod has the ports grpc",
        ),
        (
            network_policy("x", policyTypes=["Ingress"], egress=[{}]),
            11,
            "`policyTypes` leaves Egress out, so this `egress` rule is idle; add Egress to `policyTypes`",
        ),
    ],
    ids=range(5),
)
def test_a_rule_that_opens_nothing_is_dead(existing: dict[str, Any], place: int, text: str) -> None:
    [found] = lines(judged(ALLOWED, existing=(existing,)))
    assert found.startswith(f"np.yaml:{place}: dead rule: networkpolicy shop/x: ")
    assert text in found


# --- what is not judged ---


def test_who_is_not_in_the_manifests_is_named_and_not_judged() -> None:
    kafka = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}
    found = judged(
        ALLOWED,
        workload("bare", inject="false"),
        namespace("old", "disabled"),
        workload("legacy", "old"),
        existing=(out_of_orders(kafka, ports=[{"port": 9092}]), network_policy("n", "old", ingress=[{}])),
    )
    assert lines(found) == []
    notes = "\n".join(map(str, found.notes))
    assert "np.yaml:13: networkpolicy shop/x: not judged: no pod of kafka is among the manifests" in notes
    assert "networkpolicy old/n: not judged: no pod in namespace old has a sidecar" in notes
    assert "deployment shop/bare: not judged: it has no sidecar" in notes


def test_a_default_deny_where_no_pod_is_known_is_not_dead() -> None:
    assert lines(judged(ALLOWED, options=Options(namespaces=("shop", "front", "empty")))) == []


def test_only_the_namespaces_that_are_asked_for_are_judged() -> None:
    found = judged(ALLOWED, options=Options(namespaces=("front",)))
    assert lines(found) == []
    assert lines(judged(ALLOWED, without=("web-egress",), options=Options(namespaces=("shop",)))) == []


def test_many_peers_are_counted() -> None:
    more = tuple(workload(f"w{i}") for i in range(6))
    [hole] = lines(judged(ALLOWED, *more, existing=(into_orders({"podSelector": {}}),)))
    assert "shop/db, shop/orders, shop/w0, shop/w1 and 5 more into shop/orders" in hole
