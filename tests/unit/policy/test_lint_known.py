"""Lists of what exists, in our form and as kubectl prints them."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError
from proxy.policy.lint.known import read_known
from proxy.policy.lint.scene import Known, KnownWorkload

OWN = b"""
namespaces: [shop]
identities: [demo/web, cluster.local/ns/shop/sa/cart, "spiffe://td.example/ns/far/sa/x"]
workloads:
- {namespace: demo, account: orders, labels: {app: orders}}
- {namespace: demo}
"""
KUBECTL = b"""
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: cart, namespace: shop}}
- apiVersion: v1
  kind: Pod
  metadata: {name: orders-1, namespace: demo, labels: {app: orders}}
  spec: {serviceAccountName: orders}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger, namespace: demo, labels: {app: not-of-the-pods}}
spec:
  template:
    metadata: {labels: {app: ledger}}
    spec: {containers: []}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {job: nightly}}, spec: {serviceAccountName: job}}}}}
"""


def test_a_list_of_ones_own() -> None:
    known = read_known({"known.yaml": OWN})
    assert known.namespaces == {"shop", "demo", "far"}
    assert known.accounts == {"demo/web", "shop/cart", "far/x", "demo/orders", "demo/default"}
    assert known.workloads[0] == KnownWorkload("demo", "orders", {"app": "orders"})


def test_what_kubectl_prints() -> None:
    known = read_known({"known.yaml": KUBECTL})
    assert known.namespaces == {"shop", "demo", "default"}
    assert known.accounts == {"shop/cart", "demo/orders", "demo/default", "default/job"}
    assert [each.labels for each in known.workloads] == [{"app": "orders"}, {"app": "ledger"}, {"job": "nightly"}]


def test_only_namespaces_say_nothing_about_accounts() -> None:
    known = read_known({"known.yaml": b"namespaces: [demo]"})
    assert known == Known(namespaces=frozenset({"demo"}))


def test_several_files_are_joined() -> None:
    assert read_known({"a": b"namespaces: [a]", "b": b"namespaces: [b]"}).namespaces == {"a", "b"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"identities: [web]", "`identities[0]` names no ServiceAccount"),
        (b"identites: [a/b]", "did you mean `identities`?"),
        (b"workloads: [{labels: {a: b}}]", "lacks the key `namespace`"),
        (b"- a", "must be a mapping"),
        (b"a: [", "not YAML"),
    ],
)
def test_faults(data: bytes, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_known({"known.yaml": data})
    assert text in str(raised.value)
