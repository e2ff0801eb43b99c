"""Every field and every value form: what it matches, through ALLOW and through DENY alike."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, allows, connection, policy, snapshot, token

from certs.spiffe import TrustDomain
from proxy.types import Denial, Permit, VerifiedToken

Row = tuple[dict[str, Any], dict[str, Any], bool]
X = "cluster.local/ns/x/sa/y"
NOBODY = {"principal": None}


def source(**fields: Any) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: Any) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(key: str, *values: str, notValues: tuple[str, ...] = ()) -> dict[str, Any]:
    condition: dict[str, Any] = {"key": key}
    if values:
        condition["values"] = list(values)
    if notValues:
        condition["notValues"] = list(notValues)
    return {"when": [condition]}


def header(*values: bytes, name: bytes = b"x-role") -> dict[str, Any]:
    return {"headers": [(name, value) for value in values]}


PRINCIPALS: list[Row] = [
    (source(principals=[WEB]), {}, True),
    (source(principals=[WEB]), {"principal": X}, False),
    (source(principals=[X, WEB]), {}, True),
    (source(principals=[WEB.upper()]), {}, False),
    (source(principals=["*"]), {}, True),
    (source(principals=["*"]), NOBODY, False),
    (source(principals=["cluster.local/ns/demo/*"]), {}, True),
    (source(principals=["cluster.local/ns/dem*"]), {"principal": "cluster.local/ns/demon/sa/a"}, True),
    (source(principals=["*/ns/demo/sa/web"]), {}, True),
    (source(principals=["*/sa/web"]), {"principal": "other.td/ns/demo/sa/web"}, True),
    (source(principals=["*/ns/*/sa/web"]), {}, False),  # a leading star makes the rest literal
    (source(principals=["cluster.local/ns/*/sa/web"]), {}, False),  # an inner star is literal
    (source(principals=["example.org/ci/builder"]), {"principal": "example.org/ci/builder"}, True),
    (source(notPrincipals=[WEB]), {}, False),
    (source(notPrincipals=[WEB]), {"principal": X}, True),
    (source(notPrincipals=[WEB]), NOBODY, True),
    (source(notPrincipals=["*"]), NOBODY, True),
    (source(notPrincipals=["*"]), {}, False),
    (when("source.principal", WEB), {}, True),
    (when("source.principal", "*"), NOBODY, False),
    (when("source.principal", notValues=(WEB,)), {"principal": X}, True),
    (when("source.principal", "*", notValues=(WEB,)), {}, False),
]

NAMESPACES: list[Row] = [
    (source(namespaces=["demo"]), {}, True),
    (source(namespaces=["demo"]), {"principal": X}, False),
    (source(namespaces=["Demo"]), {}, False),
    (source(namespaces=["*"]), {}, True),
    (source(namespaces=["*"]), NOBODY, False),
    (source(namespaces=["de*"]), {}, True),
    (source(namespaces=["*mo"]), {}, True),
    (source(namespaces=["d*o"]), {}, True),
    (source(namespaces=["d*e*o"]), {}, True),
    (source(namespaces=["demo*demo"]), {}, False),  # the two ends may not share characters
    (source(namespaces=["*e*"]), {}, True),
    (source(namespaces=["*z*"]), {}, False),
    (source(namespaces=["d.mo"]), {}, False),  # no regular expression
    (source(namespaces=["demo"]), {"principal": "cluster.local/ns/demo"}, False),
    (source(namespaces=["demo"]), {"principal": "cluster.local/ns/demo/sa/a/b"}, False),
    (source(namespaces=["demo"]), {"principal": "cluster.local/ns/x/sa/y/ns/demo/sa/z"}, False),
    (source(namespaces=["demo"]), {"principal": "cluster.local/x/ns/demo/sa/z"}, False),
    (source(namespaces=["*"]), {"principal": "cluster.local/ci/builder"}, False),
    (source(notNamespaces=["demo"]), {}, False),
    (source(notNamespaces=["demo"]), {"principal": X}, True),
    (source(notNamespaces=["demo"]), NOBODY, True),
    (source(notNamespaces=["demo"]), {"principal": "cluster.local/ci/builder"}, True),
    (when("source.namespace", "demo"), {}, True),
    (when("source.namespace", notValues=("demo",)), {}, False),
]

SERVICE_ACCOUNTS: list[Row] = [
    (source(serviceAccounts=["web"]), {}, True),
    (source(serviceAccounts=["demo/web"]), {}, True),
    (source(serviceAccounts=["web"]), {"principal": "cluster.local/ns/x/sa/web"}, False),
    (source(serviceAccounts=["x/y"]), {"principal": X}, True),
    (source(serviceAccounts=["web"]), {"principal": "other.td/ns/demo/sa/web"}, True),
    (source(serviceAccounts=["we.b"]), {"principal": "cluster.local/ns/demo/sa/we.b"}, True),
    (source(serviceAccounts=["we.b"]), {"principal": "cluster.local/ns/demo/sa/wexb"}, False),  # CVE-2026-39350
    (source(serviceAccounts=["web"]), NOBODY, False),
    (source(serviceAccounts=["web"]), {"principal": "cluster.local/ns/demo/sa/web/x"}, False),
    (source(notServiceAccounts=["web"]), {}, False),
    (source(notServiceAccounts=["web"]), {"principal": X}, True),
    (source(notServiceAccounts=["web"]), NOBODY, True),
    (when("source.serviceAccount", "demo/web"), {}, True),
    (when("source.serviceAccount", notValues=("web",)), {}, False),
]

ADDRESSES: list[Row] = [
    (source(ipBlocks=["10.0.0.7"]), {}, True),
    (source(ipBlocks=["10.0.0.0/8"]), {}, True),
    (source(ipBlocks=["10.9.9.9/8"]), {}, True),  # bits behind the prefix do not count
    (source(ipBlocks=["11.0.0.0/8"]), {}, False),
    (source(ipBlocks=["0.0.0.0/0"]), {}, True),
    (source(ipBlocks=["::/0"]), {}, False),
    (source(ipBlocks=["10.0.0.7"]), {"ip": "::ffff:10.0.0.7"}, True),
    (source(ipBlocks=["::ffff:10.0.0.0/104"]), {}, True),
    (source(ipBlocks=["::ffff:10.0.0.7"]), {}, True),
    (source(ipBlocks=["2001:db8::/32"]), {"ip": "2001:db8::1"}, True),
    (source(ipBlocks=["2001:db8::1"]), {"ip": "2001:db8::2"}, False),
    (source(ipBlocks=["fe80::/10"]), {"ip": "fe80::1%eth0"}, True),
    (source(ipBlocks=["1.2.3.4", "10.0.0.0/24"]), {}, True),
    (source(ipBlocks=["0.0.0.0/0", "::/0"]), {"ip": ""}, False),
    (source(notIpBlocks=["10.0.0.0/8"]), {}, False),
    (source(notIpBlocks=["10.0.0.0/8"]), {"ip": "11.0.0.1"}, True),
    (source(notIpBlocks=["10.0.0.0/8"]), {"ip": ""}, True),
    (when("source.ip", "10.0.0.0/8"), {}, True),
    (when("source.ip", "0.0.0.0/0", notValues=("10.0.0.7",)), {}, False),
]

HOSTS: list[Row] = [
    (operation(hosts=["orders.demo"]), {}, True),
    (operation(hosts=["Orders.DEMO"]), {}, True),
    (operation(hosts=["evil.com"]), {"host": "EVIL.com"}, True),  # CVE-2021-39155
    (operation(hosts=["evil.com"]), {"host": "evil.com:80"}, False),  # ISTIO-SECURITY-2021-008
    (operation(hosts=["evil.com", "evil.com:*"]), {"host": "evil.com:80"}, True),
    (operation(hosts=["evil.com"]), {"host": "evil.com."}, False),
    (operation(hosts=["*.demo"]), {}, True),
    (operation(hosts=["*.demo"]), {"host": "demo"}, False),
    (operation(hosts=["orders*"]), {}, True),
    (operation(hosts=["*"]), {}, True),
    (operation(hosts=["*"]), {"host": ""}, False),
    (operation(notHosts=["ORDERS.demo"]), {}, False),
    (operation(notHosts=["a"]), {}, True),
    (when("request.headers[:authority]", "orders.demo"), {}, True),
]

METHODS: list[Row] = [
    (operation(methods=["GET"]), {}, True),
    (operation(methods=["get"]), {}, False),
    (operation(methods=["POST"]), {}, False),
    (operation(methods=["G*"]), {}, True),
    (operation(methods=["*T"]), {}, True),
    (operation(methods=["*"]), {}, True),
    (operation(notMethods=["GET", "HEAD"]), {}, False),
    (operation(notMethods=["GET", "HEAD"]), {"method": "POST"}, True),
    (when("request.headers[:method]", "GET"), {}, True),
]

PATHS: list[Row] = [
    (operation(paths=["/a"]), {"path": "/a"}, True),
    (operation(paths=["/a"]), {"path": "/a/"}, False),
    (operation(paths=["/a"]), {"path": "/A"}, False),
    (operation(paths=["/a"]), {"path": "/a%23x"}, False),  # CVE-2021-39156: an encoded # is another path
    (operation(paths=["/a*"]), {"path": "/a"}, True),
    (operation(paths=["/public*"]), {"path": "/publicsecret"}, True),
    (operation(paths=["/a/*"]), {"path": "/a"}, False),
    (operation(paths=["*/b"]), {"path": "/a/b"}, True),
    (operation(paths=["*/x*"]), {"path": "/a/x*"}, True),
    (operation(paths=["*/x*"]), {"path": "/a/xyz"}, False),
    (operation(paths=["/service/*health"]), {"path": "/service/a/health"}, False),
    (operation(paths=["/service/*health"]), {"path": "/service/*health"}, True),
    (operation(paths=["*"]), {"path": "/"}, True),
    (operation(paths=["/pkg.Service/Method"]), {"method": "POST", "path": "/pkg.Service/Method"}, True),
    (operation(paths=["/a/{*}/b"]), {"path": "/a/*/b"}, True),  # CVE-2025-46821
    (operation(paths=["/x", "/a/{*}"]), {"path": "/a/1"}, True),
    (operation(paths=["/x", "/a/{*}"]), {"path": "/x"}, True),
    (operation(notPaths=["/a/{*}"]), {"path": "/a/1"}, False),
    (operation(notPaths=["/a"]), {"path": "/b"}, True),
]

PORTS: list[Row] = [
    (operation(ports=["8080"]), {}, True),
    (operation(ports=["08080"]), {}, True),
    (operation(ports=["80"]), {}, False),
    (operation(ports=["80", "8080"]), {}, True),
    (operation(notPorts=["80"]), {}, True),
    (operation(notPorts=["8080"]), {}, False),
    (when("destination.port", "8080"), {}, True),
    (when("destination.port", "80"), {}, False),
    (when("destination.port", notValues=("8080",)), {}, False),
    (when("destination.port", notValues=("80",)), {"port": 12345}, True),
]

HEADERS: list[Row] = [
    (when("request.headers[x-role]", "admin"), header(b"admin"), True),
    (when("request.headers[X-Role]", "admin"), header(b"admin"), True),  # GHSA-qc2q-p7wx-3px3
    (when("request.headers[x-role]", "admin"), header(b"Admin"), False),
    (when("request.headers[x-role]", "admin"), {}, False),
    (when("request.headers[x-role]", "admin"), header(b"admin", b"user"), True),  # CVE-2026-26308
    (when("request.headers[x-role]", "admin"), header(b"user", b"admin"), True),
    (when("request.headers[x-role]", "admin"), header(b"admin", b"admin"), True),
    (when("request.headers[x-role]", "admin"), header(b"user,admin"), False),
    (when("request.headers[x-role]", "adm*"), header(b"admin\xff"), True),  # CVE-2026-73552
    (when("request.headers[x-role]", "*min"), header(b"\x80admin"), True),
    (when("request.headers[x-role]", "*"), header(b""), True),
    (when("request.headers[x-role]", "*"), {}, False),
    (when("request.headers[x-role]", notValues=("*",)), header(b""), False),
    (when("request.headers[x-role]", notValues=("admin",)), {}, True),
    (when("request.headers[x-role]", notValues=("admin",)), header(b"user", b"admin"), False),
    (when("request.headers[x-role]", notValues=("adm*",)), header(b"admin\xff"), False),
    (when("request.headers[x-role]", "u*", notValues=("user",)), header(b"usual"), True),
    (when("request.headers[x-role]", "u*", notValues=("user",)), header(b"usual", b"user"), False),
]

TRUST_DOMAINS: list[Row] = [
    (source(trustDomains=["cluster.local"]), {}, True),
    (source(trustDomains=["cluster.local"]), {"principal": "other.td/ns/demo/sa/web"}, False),
    (source(trustDomains=["other.td", "cluster.local"]), {}, True),
    (source(trustDomains=["Cluster.Local"]), {}, False),
    (source(trustDomains=["cluster"]), {}, False),
    (source(trustDomains=["cluster*"]), {}, True),
    (source(trustDomains=["*.local"]), {}, True),
    (source(trustDomains=["*.local"]), {"principal": "local/ns/demo/sa/web"}, False),
    (source(trustDomains=["*web"]), {}, False),  # the path of the identity does not count
    (source(trustDomains=["*"]), {}, True),
    (source(trustDomains=["*"]), {"principal": "cluster.local/ci/builder"}, True),
    (source(trustDomains=["*"]), NOBODY, False),
    (source(notTrustDomains=["cluster.local"]), {}, False),
    (source(notTrustDomains=["cluster.local"]), {"principal": "other.td/ns/demo/sa/web"}, True),
    (source(notTrustDomains=["*"]), NOBODY, True),
    (source(trustDomains=["cluster.local"], serviceAccounts=["web"]), {}, True),
    (when("source.trustDomain", "cluster.local"), {}, True),
    (when("source.trustDomain", "c*", notValues=("*.local",)), {}, False),
]

OWN_ADDRESSES: list[Row] = [
    (when("destination.ip", "10.0.0.8"), {}, True),
    (when("destination.ip", "10.0.0.7"), {}, False),
    (when("destination.ip", "10.0.0.0/24", "::1"), {}, True),
    (when("destination.ip", "::1"), {"destination_ip": "::1"}, True),
    (when("destination.ip", "0.0.0.0/0", "::/0"), {"destination_ip": ""}, False),
    (when("destination.ip", notValues=("10.0.0.8",)), {}, False),
    (when("destination.ip", notValues=("10.0.0.8",)), {"destination_ip": ""}, True),
    (source(remoteIpBlocks=["10.0.0.0/24"]), {}, True),  # without trusted proxies it is the peer
    (source(remoteIpBlocks=["192.0.2.1"]), {"headers": [(b"x-forwarded-for", b"192.0.2.1")]}, False),
    (source(notRemoteIpBlocks=["10.0.0.0/24"]), {}, False),
    (source(notRemoteIpBlocks=["10.0.0.0/24"]), {"ip": ""}, True),
    (when("remote.ip", "10.0.0.7"), {}, True),
    (when("remote.ip", "10.0.0.0/8", notValues=("10.0.0.7",)), {}, False),
]

SNIS: list[Row] = [
    (when("connection.sni", "orders.demo"), {"sni": "orders.demo"}, True),
    (when("connection.sni", "orders.demo"), {"sni": "Orders.demo"}, False),
    (when("connection.sni", "orders.demo"), {}, False),
    (when("connection.sni", "*.demo"), {"sni": "orders.demo"}, True),
    (when("connection.sni", "orders*"), {"sni": "orders.demo"}, True),
    (when("connection.sni", "*"), {"sni": "orders.demo"}, True),
    (when("connection.sni", "*"), {}, False),
    (when("connection.sni", notValues=("*",)), {}, True),
    (when("connection.sni", notValues=("orders.demo",)), {"sni": "orders.demo"}, False),
]

ISS = "https://issuer.example/realm"


def carries(**claims: Any) -> dict[str, Any]:
    return {"token": token(**({"iss": ISS} | claims))}


ALICE = carries(sub="alice@example.com")

REQUEST_PRINCIPALS: list[Row] = [
    (source(requestPrincipals=[f"{ISS}/alice@example.com"]), ALICE, True),
    (source(requestPrincipals=[f"{ISS}/alice@example.com"]), {}, False),
    (source(requestPrincipals=[f"{ISS}/Alice@example.com"]), ALICE, False),
    (source(requestPrincipals=[f"{ISS}/bob", f"{ISS}/alice@example.com"]), ALICE, True),
    (source(requestPrincipals=[f"{ISS}/bob", "other/alice@example.com"]), ALICE, False),  # pairs, not a grid
    (source(requestPrincipals=["*"]), ALICE, True),
    (source(requestPrincipals=["*"]), {}, False),
    (source(requestPrincipals=["*"]), carries(), False),
    (source(requestPrincipals=["*"]), carries(iss="", sub="alice"), False),
    (source(requestPrincipals=["*/alice@example.com"]), ALICE, True),
    (source(requestPrincipals=["*/alice"]), ALICE, False),
    (source(requestPrincipals=["*/realm/alice@example.com"]), ALICE, True),
    (source(requestPrincipals=["*/rea/alice@example.com"]), ALICE, False),
    (source(requestPrincipals=["*/realm/alice*"]), ALICE, False),  # after a leading star a star is a character
    (source(requestPrincipals=["*/realm/alice*"]), carries(sub="alice*"), True),
    (source(requestPrincipals=["*@example.com"]), ALICE, True),
    (source(requestPrincipals=["*@example.org"]), ALICE, False),
    (source(requestPrincipals=[f"{ISS}/*"]), ALICE, True),
    (source(requestPrincipals=[f"{ISS}/*"]), carries(), False),
    (source(requestPrincipals=["https://issuer.example/*"]), ALICE, False),  # the issuer is compared whole
    (source(requestPrincipals=[f"{ISS}/alice*"]), ALICE, True),
    (source(requestPrincipals=[f"{ISS}/bob*"]), ALICE, False),
    (source(requestPrincipals=["https*"]), carries(iss="https:issuer", sub="x"), True),
    (source(requestPrincipals=["https*"]), carries(iss="https:issuer"), False),
    (source(requestPrincipals=[f"{ISS}/a/b"]), carries(sub="a/b"), False),  # split at the last slash
    (source(requestPrincipals=["x/a/b"]), carries(iss="x/a", sub="b"), True),
    (source(requestPrincipals=["is*/alice"]), carries(iss="issuer", sub="alice"), False),
    (source(requestPrincipals=["i/alice smith"]), carries(iss="i", sub="alice smith"), True),
    (source(notRequestPrincipals=["*"]), {}, True),
    (source(notRequestPrincipals=["*"]), ALICE, False),
    (source(notRequestPrincipals=[f"{ISS}/bob"]), ALICE, True),
    (source(notRequestPrincipals=[f"{ISS}/bob"]), {}, True),
    (when("request.auth.principal", f"{ISS}/alice@example.com"), ALICE, True),
    (when("request.auth.principal", "*", notValues=(f"{ISS}/*",)), ALICE, False),
]

CLAIMS: list[Row] = [
    (when("request.auth.audiences", "orders"), carries(aud="orders"), True),
    (when("request.auth.audiences", "orders"), carries(aud=["web", "orders"]), True),
    (when("request.auth.audiences", "orders"), carries(aud=["web"]), False),
    (when("request.auth.audiences", "orders"), carries(), False),
    (when("request.auth.audiences", "orders"), {}, False),
    (when("request.auth.audiences", "ord*", "x"), carries(aud=["orders"]), True),
    (when("request.auth.audiences", notValues=("orders",)), carries(aud=["web", "orders"]), False),
    (when("request.auth.audiences", notValues=("orders",)), {}, True),
    (when("request.auth.presenter", "app"), carries(azp="app"), True),
    (when("request.auth.presenter", "app"), carries(aud="app"), False),
    (when("request.auth.claims[group]", "admin"), carries(group="admin"), True),
    (when("request.auth.claims[group]", "admin"), carries(group="Admin"), False),
    (when("request.auth.claims[Group]", "admin"), carries(group="admin"), False),
    (when("request.auth.claims[group]", "admin"), carries(group=["dev", "admin"]), True),
    (when("request.auth.claims[group]", "adm*"), carries(group=["dev", "admin"]), True),
    (when("request.auth.claims[group]", "*in"), carries(group=["dev", "admin"]), True),
    (when("request.auth.claims[group]", "dev admin"), carries(group="dev admin"), True),
    (when("request.auth.claims[group]", "dev"), carries(group="dev admin"), False),
    (when("request.auth.claims[group]", "*"), carries(group="x"), True),
    (when("request.auth.claims[group]", "*"), carries(group=""), False),
    (when("request.auth.claims[group]", "*"), carries(group=[]), False),
    (when("request.auth.claims[group]", "*"), carries(), False),
    (when("request.auth.claims[group]", "*"), carries(group=1), False),
    (when("request.auth.claims[group]", "1", "true", "True"), carries(group=1), False),
    (when("request.auth.claims[group]", "true", "True"), carries(group=True), False),
    (when("request.auth.claims[group]", "1"), carries(group=[1, None, {"1": "1"}]), False),
    (when("request.auth.claims[group]", "1"), carries(group=[1, "1"]), True),
    (when("request.auth.claims[group]", "*"), carries(group={"a": "b"}), False),
    (when("request.auth.claims[scope]", "read"), carries(scope="read write"), True),
    (when("request.auth.claims[scope]", "read write"), carries(scope="read write"), False),
    (when("request.auth.claims[scope]", "read"), carries(scope=["read"]), True),
    (when("request.auth.claims[permission]", "wr*"), carries(permission="read write"), True),
    (when("request.auth.claims[scope]", notValues=("write",)), carries(scope="read write"), False),
    (when("request.auth.claims[realm][roles]", "cook"), carries(realm={"roles": ["cook"]}), True),
    (when("request.auth.claims[realm][roles]", "cook"), carries(realm={"roles": "cook"}), True),
    (when("request.auth.claims[realm][roles]", "cook"), carries(realm=["cook"]), False),
    (when("request.auth.claims[realm][roles]", "cook"), carries(realm="cook", roles="cook"), False),
    (when("request.auth.claims[realm][scope]", "a"), carries(realm={"scope": "a b"}), False),  # nested: not split
    (when("request.auth.claims[a][b][c]", "d"), carries(a={"b": {"c": "d"}}), True),
    (when("request.auth.claims[a.b]", "c"), carries(**{"a.b": "c"}), True),
    (when("request.auth.claims[a.b]", "c"), carries(a={"b": "c"}), False),
    (when("request.auth.claims[https://e.com/role]", "c"), carries(**{"https://e.com/role": "c"}), True),
    (when("request.auth.claims[a[b]]", "c"), carries(**{"a[b]": "c"}), True),
    (when("request.auth.claims[a]x[b]", "c"), carries(**{"a]x[b": "c"}), True),
    (when("request.auth.claims[name]", "Zoë"), carries(name="Zoë"), True),
    (when("request.auth.claims[group]", notValues=("admin",)), carries(group=["dev", "admin"]), False),
    (when("request.auth.claims[group]", notValues=("admin",)), carries(), True),
    (when("request.auth.claims[group]", notValues=("admin",)), {}, True),
    (when("request.auth.claims[group]", "*", notValues=("admin",)), carries(group="dev"), True),
]

ROWS = [
    *PRINCIPALS,
    *NAMESPACES,
    *SERVICE_ACCOUNTS,
    *ADDRESSES,
    *HOSTS,
    *METHODS,
    *PATHS,
    *PORTS,
    *HEADERS,
    *TRUST_DOMAINS,
    *OWN_ADDRESSES,
    *SNIS,
    *REQUEST_PRINCIPALS,
    *CLAIMS,
]


@pytest.mark.parametrize(("rule", "call", "matches"), ROWS)
def test_a_field_matches_alike_in_allow_and_deny(rule: dict[str, Any], call: dict[str, Any], matches: bool) -> None:
    assert allows(snapshot(policy([rule]), default="allow-all"), **call) is matches
    assert allows(snapshot(policy([rule], "DENY"), default="allow-all"), **call) is not matches


@pytest.mark.parametrize(("rule", "call", "matches"), ROWS)
def test_a_rule_filed_among_many_matches_alike(rule: dict[str, Any], call: dict[str, Any], matches: bool) -> None:
    others = [operation(paths=[f"/other/{n}"], hosts=["no.such.host"]) for n in range(20)]
    assert allows(snapshot(policy([*others[:10], rule, *others[10:]]), default="allow-all"), **call) is matches


def test_a_token_says_which_further_claims_are_lists() -> None:
    compiled = snapshot(policy([when("request.auth.claims[roles]", "cook")]))
    split = VerifiedToken(issuer=ISS, subject="", claims={"roles": "a cook"}, space_delimited=frozenset({"roles"}))
    assert allows(compiled, token=split)
    assert not allows(compiled, **carries(roles="a cook"))


FORWARDED = [
    # trusted proxies, lines of x-forwarded-for, the address that counts (10.0.0.7 is the peer)
    (0, ["1.1.1.1"], "10.0.0.7"),
    (1, [], "10.0.0.7"),
    (1, ["1.1.1.1"], "1.1.1.1"),
    (1, ["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
    (1, ["9.9.9.9,1.1.1.1\t"], "1.1.1.1"),
    (1, ["9.9.9.9", "1.1.1.1"], "1.1.1.1"),
    (2, ["9.9.9.9, 2.2.2.2, 1.1.1.1"], "2.2.2.2"),
    (2, ["9.9.9.9, 2.2.2.2", "1.1.1.1"], "2.2.2.2"),
    (2, ["2.2.2.2, 1.1.1.1"], "2.2.2.2"),
    (2, ["1.1.1.1"], "10.0.0.7"),
    (3, ["2.2.2.2, 1.1.1.1"], "10.0.0.7"),
    (1, ["1.1.1.1, unknown"], "10.0.0.7"),
    (1, ["1.1.1.1, "], "10.0.0.7"),
    (1, ["1.1.1.1", ""], "10.0.0.7"),
    (1, ["1.1.1.1:80"], "10.0.0.7"),
    (2, ["unknown, 1.1.1.1"], "10.0.0.7"),
    (1, ["x" * 60_000], "10.0.0.7"),
    (1, ["2001:db8::1"], "2001:db8::1"),
    (1, ["::ffff:1.1.1.1"], "1.1.1.1"),
]


@pytest.mark.parametrize(("trusted", "lines", "address"), FORWARDED)
def test_the_remote_address_is_the_one_that_a_proxy_of_ours_wrote(trusted: int, lines: list[str], address: str) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]
    for rule in (source(remoteIpBlocks=[address]), when("remote.ip", address)):
        compiled = snapshot(policy([rule]), trusted_proxies=trusted)
        assert allows(compiled, headers=headers)
    others = snapshot(policy([source(notRemoteIpBlocks=[address])]), trusted_proxies=trusted)
    assert not allows(others, headers=headers)


def test_on_an_opaque_connection_the_remote_address_is_the_peers() -> None:
    compiled = snapshot(policy([source(remoteIpBlocks=["10.0.0.7"])]), trusted_proxies=1)
    assert isinstance(compiled.connection(connection()), Permit)
    assert isinstance(compiled.connection(connection(ip="10.0.0.9")), Denial)


@pytest.mark.parametrize(
    ("value", "caller", "matches"),
    [
        ("new.td", "old.td", True),
        ("old.td", "new.td", True),
        ("new.td", "far.td", False),
        ("far.td", "far.td", True),
        ("far.td", "new.td", False),
        ("cluster.local", "new.td", False),
        ("new*", "old.td", False),
    ],
)
def test_a_trust_domain_of_the_mesh_stands_for_all_of_them(value: str, caller: str, matches: bool) -> None:
    mesh: dict[str, Any] = {"trust_domain": TrustDomain("new.td"), "trust_domain_aliases": (TrustDomain("old.td"),)}
    principal = f"{caller}/ns/demo/sa/web"
    assert allows(snapshot(policy([source(trustDomains=[value])]), **mesh), principal=principal) is matches
    negative = snapshot(policy([source(notTrustDomains=[value])]), **mesh)
    assert allows(negative, principal=principal) is not matches


def test_a_policy_that_needs_mtls_in_words_refuses_plain_text() -> None:
    compiled = snapshot(policy([source(notPrincipals=["*"])], "DENY"), default="allow-all")
    assert allows(compiled)
    assert not allows(compiled, principal=None)
