"""What pages say of the configuration, the certificates and the policy; and what they never say."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

import pytest

from certs.spiffe import TrustDomain
from certs.store import judge_set
from certs.testing import MemoryAuthority, set_files
from proxy.admin import topics
from proxy.admin.pages import Readiness
from proxy.admin.text import as_text
from proxy.config import load_config
from proxy.limits import Limits
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import Generation

CONFIG = b"""
workload: {namespace: demo, service_account: orders, labels: {app: orders}}
identity: {files: {directory: /run/secrets/remora}}
inbound: {ports: [{listen: "[::]:15443", port: 8080, app: "127.0.0.1:8080", protocol: http}]}
outbound:
  listeners: [{listen: "127.0.0.1:9001", service: ledger}]
  services:
    - {name: ledger, endpoints: ["10.0.0.7:15443"], protocol: tcp, identities: ["spiffe://cluster.local/ns/demo/sa/ledger"]}
policy: {directory: /etc/remora/policy}
admin: {listen: "unix:/run/remora/admin.sock"}
limits: {head_timeout: 5s}
"""

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: demo}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/demo/sa/web]}}, {source: {namespaces: [ops]}}]
    to: [{operation: {methods: [GET], notPaths: ["/admin/*"], ports: ["8080"]}}]
    when: [{key: "request.headers[x-role]", values: [reader, writer]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shut, namespace: demo}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/secret"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: demo, annotations: {"istio.io/dry-run": "true"}}
spec: {action: DENY, rules: [{}]}
"""


def snapshot(text: str) -> PolicySnapshot:
    workload = Workload(
        namespace="demo",
        service_account="orders",
        name="orders",
        labels={"app": "orders"},
        trust_domain=TrustDomain("cluster.local"),
    )
    settings = PolicySettings(default=PolicyDefault.DENY)
    return load({"p.yaml": text.encode()}, workload=workload, settings=settings, generation=Generation(4))


def test_the_configuration_is_shown_as_compiled() -> None:
    shown = topics.configuration(load_config(CONFIG, "c.yaml"))
    assert json.loads(json.dumps(shown)) == shown
    assert shown["trust_domain"] == "cluster.local", "a default, filled in"
    [port] = shown["inbound"]
    assert port == {
        "listen": "[::]:15443",
        "port": 8080,
        "app": "127.0.0.1:8080",
        "protocol": "http",
        "speaks_first": "client",
    }
    ledger = shown["outbound"]["services"]["ledger"]
    assert ledger["identities"] == ["spiffe://cluster.local/ns/demo/sa/ledger"]
    assert ledger["endpoints"] == ["10.0.0.7:15443"]
    assert shown["admin"] == {"listen": "unix:/run/remora/admin.sock"}
    assert shown["limits"]["head_timeout"] == 5.0
    assert set(shown["limits"]) == set(Limits.__dataclass_fields__)
    assert "head timeout" in as_text(shown)


@pytest.fixture(scope="module")
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


@pytest.fixture(scope="module")
def files(memory: MemoryAuthority) -> Mapping[str, bytes]:
    return set_files(memory.svid("demo", "orders"), memory.bundles)


def certificates(memory: MemoryAuthority, files: Mapping[str, bytes], now: datetime.datetime) -> dict[str, Any]:
    identity_set = judge_set(files, memory.trust_domain, memory.now)
    return topics.certificates(identity_set, Generation(3), now.timestamp())


def test_certificates_are_shown_with_what_is_left(memory: MemoryAuthority, files: Mapping[str, bytes]) -> None:
    shown = certificates(memory, files, memory.now)
    assert shown["identity"] == "spiffe://cluster.local/ns/demo/sa/orders"
    assert shown["generation"] == 3
    assert shown["left_seconds"] > 0
    assert [item["trust_domain"] for item in shown["trust"]] == ["neighbour.example", "cluster.local"]
    assert shown["chain"][0]["identity"] == shown["identity"]
    assert shown["chain"][0]["serial"] == shown["serial"]
    later = certificates(memory, files, memory.now + datetime.timedelta(seconds=shown["left_seconds"] + 60))
    assert later["left_seconds"] == -60
    assert "1 min ago" in as_text(later)


def test_no_part_of_a_private_key_is_shown(memory: MemoryAuthority, files: Mapping[str, bytes]) -> None:
    shown = json.dumps(certificates(memory, files, memory.now))
    secret = [line for line in files["tls.key"].decode().splitlines() if line and not line.startswith("-----")]
    assert secret
    for line in secret:
        assert line not in shown
    assert "PRIVATE" not in shown


def test_without_certificates_there_is_nothing_to_show() -> None:
    assert topics.certificates(None, Generation(0), 0.0) == {
        "generation": 0,
        "identity": None,
        "chain": [],
        "trust": [],
    }


def test_the_rules_in_force_stand_in_the_order_of_a_decision() -> None:
    shown = topics.policy(snapshot(POLICIES))
    assert (shown["generation"], shown["default"], shown["default_applies"]) == (4, "deny", False)
    assert (shown["mutual_tls"], shown["mutual_tls_source"]) == ("STRICT", "no PeerAuthentication says otherwise")
    assert [(rule["rule"], rule["action"]) for rule in shown["rules"]] == [
        ("ns[demo]-policy[shut]-rule[0]", "DENY"),
        ("ns[demo]-policy[web]-rule[0]", "ALLOW"),
        ("ns[demo]-policy[tried]-rule[0]", "DENY (dry run)"),
    ]
    web = shown["rules"][1]
    assert web["from"] == "principals cluster.local/ns/demo/sa/web or namespaces ops"
    assert web["to"] == "methods GET and notPaths /admin/* and ports 8080"
    assert web["when"] == "request.headers[x-role] reader, writer"
    assert web["place"] == "p.yaml:7"


def test_many_rules_are_counted_and_some_are_shown() -> None:
    rules = ", ".join(f"{{to: [{{operation: {{paths: [/p{number}]}}}}]}}" for number in range(topics.MAX_ROWS + 5))
    document = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: many, namespace: demo}\n"
        f"spec: {{rules: [{rules}]}}\n"
    )
    shown = topics.policy(snapshot(document))
    assert (shown["rule_count"], len(shown["rules"])) == (topics.MAX_ROWS + 5, topics.MAX_ROWS)


def test_without_policy_there_is_no_rule() -> None:
    assert topics.policy(None) == {"generation": 0, "warnings": [], "rules": []}


def test_readiness_names_what_is_missing_and_what_is_broken() -> None:
    state = Readiness(missing={"policy": ("a", "b")}, rejected={"certificates": ["c"]})
    assert topics.readiness(state) == {
        "ready": False,
        "missing": {"policy": ["a", "b"]},
        "rejected": {"certificates": ["c"]},
    }
