"""Builds policies, snapshots and calls for the tests of policy; documents are written as JSON, which is YAML."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from certs.spiffe import SpiffeId, TrustDomain
from proxy.errors import ConfigError
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import (
    ConnectionAttributes,
    Denial,
    Generation,
    PeerIdentity,
    Permit,
    RequestAttributes,
    VerifiedToken,
)

WEB = "cluster.local/ns/demo/sa/web"


def document(kind: str, spec: Mapping[str, Any], name: str = "p", namespace: str = "demo", **annotations: str) -> bytes:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if annotations:
        metadata["annotations"] = {"istio.io/dry-run": annotations["dry_run"]}
    whole = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    return json.dumps(whole).encode()


def policy(
    rules: Sequence[Mapping[str, Any]] | None,
    action: str = "ALLOW",
    name: str = "p",
    namespace: str = "demo",
    selector: Mapping[str, str] | None = None,
    **annotations: str,
) -> bytes:
    spec: dict[str, Any] = {"action": action}
    if rules is not None:
        spec["rules"] = rules
    if selector is not None:
        spec["selector"] = {"matchLabels": selector}
    return document("AuthorizationPolicy", spec, name, namespace, **annotations)


def workload(**changes: Any) -> Workload:
    values: dict[str, Any] = {
        "namespace": "demo",
        "service_account": "orders",
        "name": "orders-1",
        "labels": {"app": "orders", "version": "v1"},
        "trust_domain": TrustDomain("cluster.local"),
    }
    return Workload(**(values | changes))


def snapshot(
    *documents: bytes,
    default: str = "deny",
    tcp_ports: Collection[int] = (),
    trusted_proxies: int = 0,
    **changes: Any,
) -> PolicySnapshot:
    files = {f"{index:03}.json": each for index, each in enumerate(documents)}
    return load(
        files,
        workload=workload(**changes),
        settings=PolicySettings(default=PolicyDefault(default), trusted_proxies=trusted_proxies),
        generation=Generation(7),
        tcp_ports=tcp_ports,
    )


def faults(*documents: bytes, **options: Any) -> list[str]:
    try:
        snapshot(*documents, **options)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []


def connection(
    principal: str | None = WEB,
    ip: str = "10.0.0.7",
    port: int = 8080,
    sni: str = "",
    destination_ip: str = "10.0.0.8",
) -> ConnectionAttributes:
    peer = None
    if principal is not None:
        spiffe_id = SpiffeId.parse(f"spiffe://{principal}")
        peer = PeerIdentity(spiffe_id=spiffe_id, not_after=4102444800.0, serial="01", fingerprint="00" * 32)
    return ConnectionAttributes(peer=peer, source_ip=ip, destination_ip=destination_ip, destination_port=port, sni=sni)


def request(
    method: str = "GET",
    path: str = "/",
    host: str = "orders.demo",
    headers: Sequence[tuple[bytes, bytes]] = (),
    token: VerifiedToken | None = None,
) -> RequestAttributes:
    return RequestAttributes(method=method, path=path, host=host, headers=headers, token=token)


def token(expires_at: float = math.inf, **claims: Any) -> VerifiedToken:
    """A verified token of `issuer.example` with these claims beside `iss`."""
    claims = {"iss": "issuer.example"} | claims
    return VerifiedToken(issuer=claims["iss"], subject=claims.get("sub", ""), claims=claims, expires_at=expires_at)


CONNECTION_WORDS = ("principal", "ip", "port", "sni", "destination_ip")


def judge(compiled: PolicySnapshot, **call: Any) -> Permit | Denial:
    """Judge one HTTP request made of defaults and the words given."""
    of_connection = {key: call.pop(key) for key in list(call) if key in CONNECTION_WORDS}
    return compiled.request(connection(**of_connection), request(**call))


def allows(compiled: PolicySnapshot, **call: Any) -> bool:
    return isinstance(judge(compiled, **call), Permit)
