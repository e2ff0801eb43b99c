"""The small world of the runnable examples: one workload `orders` and its caller `web`."""

from __future__ import annotations

from certs.spiffe import SpiffeId, TrustDomain
from proxy.policy.load import load
from proxy.policy.model import PolicyDefault, PolicySettings, Rule, Workload
from proxy.policy.snapshot import PolicySnapshot
from proxy.types import ConnectionAttributes, Generation, PeerIdentity, RequestAttributes

workload = Workload(
    namespace="demo",
    service_account="orders",
    name="orders-1",
    labels={"app": "orders"},
    trust_domain=TrustDomain("cluster.local"),
)
deny = PolicySettings(default=PolicyDefault.DENY)
web = ConnectionAttributes(
    peer=PeerIdentity(
        spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web"),
        not_after=4102444800.0,
        serial="01",
        fingerprint="00" * 32,
    ),
    source_ip="10.0.0.7",
    destination_ip="10.0.0.8",
    destination_port=8080,
)


def snapshot_of(text: str) -> PolicySnapshot:
    """Load one file of policies for the workload `orders`, with the default `deny`."""
    return load({"policy.yaml": text.encode()}, workload=workload, settings=deny, generation=Generation(1))


def rule_of(text: str) -> Rule:
    """Read one rule of an ALLOW policy, written as the inside of a mapping."""
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: example}\nspec: {rules: [{"
    return snapshot_of(f"{head}{text}}}]}}\n").rules[0].rule


def get(path: str) -> RequestAttributes:
    """Make a GET request for a path."""
    return RequestAttributes(method="GET", path=path, host="orders.demo", headers=())
