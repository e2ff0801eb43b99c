"""Every field and every value form: what it matches, through ALLOW and through DENY alike."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, allows, policy, snapshot

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
]


@pytest.mark.parametrize(("rule", "call", "matches"), ROWS)
def test_a_field_matches_alike_in_allow_and_deny(rule: dict[str, Any], call: dict[str, Any], matches: bool) -> None:
    assert allows(snapshot(policy([rule]), default="allow-all"), **call) is matches
    assert allows(snapshot(policy([rule], "DENY"), default="allow-all"), **call) is not matches


@pytest.mark.parametrize(("rule", "call", "matches"), ROWS)
def test_a_rule_filed_among_many_matches_alike(rule: dict[str, Any], call: dict[str, Any], matches: bool) -> None:
    others = [operation(paths=[f"/other/{n}"], hosts=["no.such.host"]) for n in range(20)]
    assert allows(snapshot(policy([*others[:10], rule, *others[10:]]), default="allow-all"), **call) is matches


def test_a_policy_that_needs_mtls_in_words_refuses_plain_text() -> None:
    compiled = snapshot(policy([source(notPrincipals=["*"])], "DENY"), default="allow-all")
    assert allows(compiled)
    assert not allows(compiled, principal=None)
