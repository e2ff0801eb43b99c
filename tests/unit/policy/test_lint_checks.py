"""Findings in their variants: what each check takes and what it leaves alone. The pages hold one example of each."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import document, policy, workload

from certs.spiffe import TrustDomain
from proxy.errors import Fault
from proxy.policy.lint import Scene, lint
from proxy.policy.lint.scene import Known, KnownWorkload
from proxy.policy.model import PolicyDefault, PolicySettings
from proxy.policy.read import read_files
from proxy.protocol.path import PathNormalization
from proxy.types import Protocol

SETTINGS = PolicySettings(default=PolicyDefault.DENY)


def found(*documents: bytes, **scene: Any) -> list[Fault]:
    files = {f"{index:03}.json": each for index, each in enumerate(documents)}
    policies, faults, _ = read_files(files, workload(), SETTINGS)
    assert faults == []
    settings = scene.pop("settings", SETTINGS)
    return lint(policies, Scene(settings=settings, **scene))


def codes(*documents: bytes, **scene: Any) -> list[str]:
    return sorted(fault.code for fault in found(*documents, **scene))


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: list[str]) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(key: str, *values: str, **others: list[str]) -> dict[str, Any]:
    return {"when": [{"key": key} | ({"values": list(values)} if values else {}) | others]}


# --- values ----------------------------------------------------------------------------------------------------------

VALUES = [
    (operation(paths=["/a*"]), ["RM0101"]),
    (operation(notPaths=["/a*"]), ["RM0101"]),
    (operation(paths=["*a*"]), ["RM0102"]),
    (operation(paths=["/a/*", "/a"]), []),
    (operation(paths=["/a/{*}"]), []),
    (operation(hosts=["*.a.*", "b:*", "b"]), ["RM0102"]),
    (when("request.headers[x]", "a*b"), ["RM0102"]),
    (when("connection.sni", "*a*"), ["RM0102"]),
    (when("connection.sni", "A.b"), ["RM0113"]),
    (source(namespaces=["a-*-b"]), []),
    (operation(paths=["a", "*a", "*"]), ["RM0103", "RM0109", "RM0109"]),
    (operation(paths=["/a#b"]), ["RM0104"]),
    (operation(methods=["Get"]), ["RM0106"]),
    (operation(methods=["PROPFIND", "*"]), ["RM0109"]),
    (operation(hosts=["a"]), ["RM0108"]),
    (operation(notHosts=["a"]), ["RM0107"]),
    (operation(notHosts=["a", "a:*"]), []),
    (operation(notHosts=["a*"]), []),
    (source(ipBlocks=["10.0.0.1/32"]), []),
    (source(ipBlocks=["10.0.0.1/8"]), ["RM0110"]),
    (source(ipBlocks=["2001:db8::1/64"]), ["RM0110"]),
    (source(ipBlocks=["10.0.0.0/8", "10.1.0.0/16"]), ["RM0109"]),
    (source(namespaces=["a", "a"]), ["RM0109"]),
    (when("request.headers[x_a]", "b"), ["RM0111"]),
]


@pytest.mark.parametrize(("rule", "expected"), VALUES)
def test_values(rule: dict[str, Any], expected: list[str]) -> None:
    assert codes(policy([rule])) == expected


@pytest.mark.parametrize(
    ("value", "mode", "mended"),
    [
        ("/a/../b", PathNormalization.BASE, "/b"),
        ("/a/../b", PathNormalization.NONE, None),
        ("/%41", PathNormalization.BASE, "/A"),
        ("/%2f", PathNormalization.BASE, None),
        ("/%2fa", PathNormalization.DECODE_AND_MERGE_SLASHES, "/a"),
        ("//a", PathNormalization.BASE, None),
        ("//a/*", PathNormalization.MERGE_SLASHES, "/a/*"),
        ("/a/..*", PathNormalization.BASE, None),
        ("/a/../*", PathNormalization.BASE, "/*"),
        ("*/./a", PathNormalization.BASE, "*/a"),
        ("*.", PathNormalization.BASE, None),
        ("/a/./{*}", PathNormalization.BASE, ""),
        ("/a/{*}/{**}", PathNormalization.MERGE_SLASHES, None),
        ("/%00", PathNormalization.BASE, ""),
    ],
)
def test_paths_out_of_normal_form(value: str, mode: PathNormalization, mended: str | None) -> None:
    faults = [
        fault for fault in found(policy([operation(paths=[value])]), normalization=mode) if fault.code == "RM0105"
    ]
    if mended is None:
        assert faults == []
    else:
        (fault,) = faults
        assert fault.hint == (f'write "{mended}"' if mended else "such a path is answered 400")


def test_remote_addresses_need_trusted_proxies() -> None:
    rule = policy([source(remoteIpBlocks=["10.0.0.0/8"])])
    trusting = PolicySettings(default=PolicyDefault.DENY, trusted_proxies=1)
    assert codes(rule, is_configured=True) == ["RM0112"]
    assert codes(rule, is_configured=True, settings=trusting) == []
    assert codes(rule) == []


# --- identities ------------------------------------------------------------------------------------------------------

KNOWN = Known(namespaces=frozenset({"demo", "shop"}), accounts=frozenset({"demo/web"}))
HINTED = Known(hinted_namespaces=frozenset({"billing", "api-1"}), hinted_accounts=frozenset({"billing/invoices"}))


@pytest.mark.parametrize(
    ("rule", "known", "expected"),
    [
        (source(principals=["cluster.local/ns/demo/sa/web", "*/ns/demo/sa/web"]), KNOWN, ["RM0109"]),
        (source(principals=["*/ns/demo/sa/wab"]), KNOWN, ["RM0202"]),
        (source(serviceAccounts=["wab"]), KNOWN, ["RM0202"]),
        (source(namespaces=["shop", "s*"]), KNOWN, ["RM0109", "RM0207"]),
        (source(notNamespaces=["shops"]), KNOWN, ["RM0203"]),
        (source(namespaces=["biling"]), HINTED, ["RM0203"]),
        (source(namespaces=["other"]), HINTED, []),
        (source(namespaces=["api-2"]), HINTED, []),
        (source(serviceAccounts=["billing/invoice"]), HINTED, ["RM0202"]),
        (source(principals=["cluster.local/ns/biling/sa/x"]), HINTED, ["RM0203"]),
    ],
)
def test_names_that_nobody_has(rule: dict[str, Any], known: Known, expected: list[str]) -> None:
    assert codes(policy([rule]), known=known) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cluster.local/ns/demo*", ["RM0207"]),
        ("cluster.local/ns/demo/*", []),
        ("cluster.local/ns/demo/sa/web*", []),
        ("*web", ["RM0207"]),
        ("*/sa/web", []),
        ("*", []),
        ("demo/web", ["RM0204"]),
        ("cluster.local/ns/demo/sa/web/x", ["RM0204"]),
    ],
)
def test_the_form_of_principals(value: str, expected: list[str]) -> None:
    assert codes(policy([source(principals=[value])])) == expected


def test_foreign_trust_domains() -> None:
    own = (TrustDomain("mesh.example"), TrustDomain("old.example"))
    values = ["mesh.example/ns/a/sa/b", "old.example/ns/a/sa/b", "cluster.local/ns/a/sa/b", "*/ns/a/sa/c"]
    assert codes(policy([source(principals=values)]), trust_domains=own) == []
    assert codes(policy([source(principals=["x.example/ns/a/sa/b"])]), trust_domains=own) == ["RM0201"]
    assert codes(policy([source(trustDomains=["x.example"])]), trust_domains=own) == ["RM0201"]
    assert codes(policy([source(trustDomains=["x.example"])])) == []


def peers(mode: str, namespace: str = "demo", app: str = "", name: str = "peers") -> bytes:
    spec: dict[str, Any] = {"mtls": {"mode": mode}}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    return document("PeerAuthentication", spec, name, namespace)


@pytest.mark.parametrize(
    ("documents", "is_open"),
    [
        ([], False),
        ([peers("PERMISSIVE")], True),
        ([peers("PERMISSIVE", "shop")], False),
        ([peers("PERMISSIVE", "istio-system")], True),
        ([peers("PERMISSIVE", "istio-system"), peers("STRICT")], False),
        ([peers("STRICT", "istio-system"), peers("DISABLE", app="orders")], True),
        ([peers("DISABLE", app="ledger")], False),
    ],
)
def test_plaintext_without_a_workload_at_hand(documents: list[bytes], is_open: bool) -> None:
    rule = policy([source(namespaces=["guests"])], "DENY", selector={"app": "orders"})
    assert ("RM0206" in codes(rule, *documents)) is is_open


# --- rules -----------------------------------------------------------------------------------------------------------

WEB, CART = "cluster.local/ns/demo/sa/web", "cluster.local/ns/shop/sa/cart"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (operation(paths=["/a"], notPaths=["/a"]), ["RM0301"]),
        (operation(paths=["/a", "/b"], notPaths=["/a"]), []),
        (operation(paths=["/a/b", "/a/c"], notPaths=["/a/*"]), ["RM0301"]),
        (operation(methods=["GET"]) | when("destination.port", "80", notValues=["80", "81"]), ["RM0301"]),
        (operation(ports=["80"]) | when("destination.port", "81"), ["RM0301"]),
        (operation(ports=["80"]) | when("destination.port", "80"), []),
        (source(principals=[WEB], notNamespaces=["demo"]), ["RM0301"]),
        (source(principals=[WEB], namespaces=["shop"]), ["RM0301"]),
        (source(principals=[WEB, CART], namespaces=["shop"]), []),
        (source(principals=[WEB]) | when("source.serviceAccount", "shop/cart"), ["RM0301"]),
        (source(principals=["a.example/ns/demo/sa/web"]) | when("source.principal", WEB), []),
        (source(ipBlocks=["10.0.0.0/8"], notIpBlocks=["10.0.0.0/7"]), ["RM0301"]),
        (source(ipBlocks=["10.0.0.0/8"]) | when("source.ip", "10.1.0.0/16"), []),
        (source(ipBlocks=["10.0.0.0/8"]) | when("source.ip", "2001:db8::/32"), ["RM0301"]),
        ({"when": [{"key": "request.headers[x]", "values": [value]} for value in ("a", "b")]}, []),
        (when("request.headers[x]", "a", notValues=["a*"]), ["RM0301"]),
        (operation(methods=["GET"], notPaths=["*"]), ["RM0302"]),
        (source(notPrincipals=["*"]), []),
        ({"to": [{"operation": {"ports": ["80"], "notPorts": ["80"]}}, {"operation": {"ports": ["81"]}}]}, ["RM0301"]),
    ],
)
def test_rules_that_never_match(rule: dict[str, Any], expected: list[str]) -> None:
    assert [code for code in codes(policy([rule])) if code < "RM0304" and code != "RM0109"] == expected


def test_a_contradiction_says_how_much_is_lost() -> None:
    dead = {"operation": {"ports": ["80"], "notPorts": ["80"]}}
    (fault,) = found(policy([{"to": [dead, {"operation": {"ports": ["81"]}}]}]))
    assert (
        fault.message
        == '`notPorts`: `ports` ("80") and `notPorts` ("80") leave nothing: this item of `to` never matches'
    )
    (fault,) = found(policy([{"to": [dead]}]))
    assert fault.message.endswith("the rule never matches")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([{"namespaces": ["a"]}, {"ipBlocks": ["10.0.0.1"]}], ["RM0306"]),
        ([{"namespaces": ["a"]}, {"namespaces": ["b"]}], []),
        ([{"namespaces": ["a"]}, {"notNamespaces": ["b"]}], []),
        ([{"namespaces": ["a"]}, {"principals": [CART], "ipBlocks": ["10.0.0.1"]}], []),
    ],
)
def test_stray_dashes(items: list[dict[str, Any]], expected: list[str]) -> None:
    assert codes(policy([{"from": [{"source": item} for item in items]}])) == expected


def test_a_stray_dash_is_told_as_a_boolean_and_mended() -> None:
    items = [{"operation": {"methods": ["GET"]}}, {"operation": {"paths": ["/a"]}}]
    (fault,) = found(policy([source(namespaces=["demo"]) | {"to": items}]))
    assert 'The rule reads: ALLOW if namespace is "demo" AND ((method is "GET") OR (path is "/a"))' in fault.message
    assert fault.hint.startswith('for (method is "GET") AND (path is "/a") drop the second `- `')


# --- ports and protocols ---------------------------------------------------------------------------------------------

PORTS = {8080: Protocol.HTTP, 9090: Protocol.AUTO, 3306: Protocol.TCP}


@pytest.mark.parametrize(
    ("rule", "action", "expected"),
    [
        (operation(ports=["80"]), "ALLOW", ["RM0303"]),
        (operation(ports=["80", "8080"]), "ALLOW", []),
        (operation(notPorts=["8080", "9090", "3306"]), "ALLOW", ["RM0303"]),
        (operation(methods=["GET"]), "DENY", ["RM0401"]),
        (operation(methods=["GET"], ports=["8080"]), "DENY", []),
        (operation(methods=["GET"], notPorts=["9090"]), "DENY", []),
        (operation(methods=["GET"]) | when("destination.port", "8080"), "DENY", []),
        (when("request.headers[x]", "a"), "AUDIT", ["RM0401"]),
        (source(namespaces=["a"]), "DENY", []),
        (operation(methods=["GET"], ports=["3306"]), "ALLOW", ["RM0403"]),
        (operation(methods=["GET"], ports=["3306", "9090"]), "ALLOW", []),
    ],
)
def test_ports(rule: dict[str, Any], action: str, expected: list[str]) -> None:
    assert codes(policy([rule], action), workload=workload(), ports=PORTS) == expected


def test_ports_that_are_not_known() -> None:
    assert codes(policy([operation(methods=["GET"])], "DENY")) == ["RM0402"]
    assert codes(policy([operation(methods=["GET"], ports=["80"])], "DENY")) == []
    assert codes(policy([operation(ports=["80"])])) == []


# --- documents -------------------------------------------------------------------------------------------------------

RULES = [source(namespaces=["a"])]
WORKLOADS = Known(workloads=(KnownWorkload("demo", "orders", {"app": "orders"}), KnownWorkload("shop", "x", {})))


def test_names_are_told_apart_by_kind_and_namespace() -> None:
    strict = document("PeerAuthentication", {"mtls": {"mode": "STRICT"}}, "p")
    assert codes(policy(RULES), policy(RULES, namespace="shop"), strict) == []
    assert "RM0501" in codes(policy(RULES), policy(RULES))


def test_selectors_and_what_runs() -> None:
    assert codes(policy(RULES, selector={"app": "orders"}), known=WORKLOADS) == []
    (fault,) = found(policy(RULES, selector={"app": "order"}), known=WORKLOADS)
    assert (fault.code, fault.hint) == ("RM0502", "the nearest, of account orders, has app=orders")
    (fault,) = found(policy(RULES, selector={"app": "x"}, namespace="empty"), known=WORKLOADS)
    assert fault.hint == "nothing runs there"
    assert codes(policy(RULES, selector={"app": "orders"}, namespace="istio-system"), known=WORKLOADS) == []


def test_dry_runs() -> None:
    dry = policy(RULES, name="q", dry_run="true")
    assert codes(policy(RULES), dry) == ["RM0405"]
    assert codes(policy(RULES, "DENY"), dry) == []
    assert codes(policy(RULES, selector={"app": "x"}), dry) == []
    assert codes(policy(RULES, "AUDIT", dry_run="1")) == ["RM0404"]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([peers("STRICT"), peers("STRICT", "shop", name="b")], []),
        ([peers("STRICT"), peers("STRICT", name="b")], ["RM0601"]),
        ([peers("STRICT", app="a"), peers("STRICT", app="a", name="b")], ["RM0601"]),
        ([peers("STRICT", app="a"), peers("STRICT", app="b", name="b")], []),
        ([peers("STRICT", "istio-system", app="a"), peers("STRICT", "istio-system", name="b")], ["RM0602"]),
    ],
)
def test_peer_authentications(documents: list[bytes], expected: list[str]) -> None:
    assert codes(*documents) == expected


def test_two_selectors_that_meet_in_one_workload() -> None:
    other = {"selector": {"matchLabels": {"version": "v1"}}, "mtls": {"mode": "STRICT"}}
    documents = [peers("STRICT", app="orders"), document("PeerAuthentication", other, "b")]
    assert codes(*documents) == []
    assert codes(*documents, workload=workload()) == ["RM0601"]
    known = Known(workloads=(KnownWorkload("demo", "orders", {"app": "orders", "version": "v1"}),))
    assert codes(*documents, known=known) == ["RM0601"]


# --- tokens ----------------------------------------------------------------------------------------------------------


def tokens(app: str = "", namespace: str = "demo") -> bytes:
    rule = {"issuer": "https://i.example", "audiences": ["a"], "jwksUri": "https://i.example/keys"}
    spec: dict[str, Any] = {"jwtRules": [rule]}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    return document("RequestAuthentication", spec, "tokens", namespace)


ANY = source(requestPrincipals=["https://i.example/*"])


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([tokens(), policy([ANY])], []),
        ([tokens(), policy(RULES)], ["RM0701"]),
        ([tokens()], []),  # nothing is allowed at all
        ([tokens(), policy(RULES), policy([source(notRequestPrincipals=["*"])], "DENY", name="q")], ["RM0402"]),
        ([tokens(), policy(RULES), policy([when("request.auth.audiences", "x")], name="q")], []),
        ([tokens(app="a"), policy([ANY], selector={"app": "b"})], ["RM0702"]),
        ([tokens(namespace="istio-system"), policy([ANY])], []),
        ([policy([source(notRequestPrincipals=["x/y"])])], []),
        ([tokens(), policy([source(requestPrincipals=["https://j.example/x"])])], ["RM0703"]),
        ([tokens(), policy([when("request.auth.claims[iss]", "https://j.example")])], ["RM0703"]),
        ([tokens(), policy([source(requestPrincipals=["*/x", "*"])])], ["RM0109"]),
        ([tokens(), policy([source(requestPrincipals=["https://i.example/x"])], "DENY")], ["RM0402", "RM0705"]),
        ([tokens(), policy([ANY]), policy([source(requestPrincipals=["https://i.example/x"])], "DENY", name="q")],
         ["RM0402"]),
    ],
)  # fmt: skip
def test_tokens(documents: list[bytes], expected: list[str]) -> None:
    assert codes(*documents) == expected


def test_findings_stand_in_the_order_of_places() -> None:
    rules = [operation(paths=["/a*"]), operation(methods=["get"])]
    faults = found(policy(rules, name="b"), policy(rules, name="a"))
    assert faults == sorted(faults)


def test_the_number_of_findings_is_bounded() -> None:
    rules = [operation(paths=[f"/{n}*" for n in range(20)]) for _ in range(512)]
    assert len(found(policy(rules))) == 1_000
