"""Writes the rules that judge a run, of any number, in the words of each contender that judges. Pure.

`rules` counts all of them: one DENY rule, which the probe in the middle of a load meets, and ALLOW rules, of which only
the last matches the load. HTTP rules differ by a path prefix behind a common one, TCP rules by the caller, or by its
address where there is no mutual TLS to tell a caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.configs import CALLED, CALLER_ID, DENIED_PREFIX, NAMESPACE, TRUST_DOMAIN

RULES_OF_A_DOCUMENT: Final = 100
DENIED_SOURCE: Final = "127.0.0.9"
"""An address of the loopback network that nobody but the probe calls from."""

Rule = Mapping[str, Any]


def documents(*, rules: int, http: bool, mutual: bool) -> str:
    """Write the policy files of a sidecar as one text: what its ports take, and the rules (none for 0)."""
    mode = "STRICT" if mutual else "DISABLE"
    found = [_document("PeerAuthentication", "mode", {"mtls": {"mode": mode}})]
    if rules:
        source = {} if http else {"from": [{"source": {"ipBlocks": [DENIED_SOURCE]}}]}
        operation = {"to": [{"operation": {"paths": [f"{DENIED_PREFIX}/*"]}}]} if http else {}
        denied = {"action": "DENY", "rules": [{**source, **operation}]}
        found.append(_document("AuthorizationPolicy", "deny", denied))
        allowed = list(_http_rules(rules - 1, mutual) if http else _tcp_rules(rules - 1, mutual))
        for first in range(0, len(allowed), RULES_OF_A_DOCUMENT):
            spec = {"action": "ALLOW", "rules": allowed[first : first + RULES_OF_A_DOCUMENT]}
            found.append(_document("AuthorizationPolicy", f"allow-{first:05}", spec))
    return "".join(f"---\n{json.dumps(document)}\n" for document in found)


def prefixes(count: int) -> list[str]:
    """Give the path prefixes of `count` ALLOW rules, the load's own at last."""
    return [*(f"/api/v1/thing-{number}/" for number in range(count - 1)), f"/{CALLED}/"]


def callers(count: int) -> list[str]:
    """Give the SPIFFE ids of `count` ALLOW rules, the load's own at last."""
    others = (f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/caller-{number}" for number in range(count - 1))
    return [*others, CALLER_ID]


def envoy_http(rules: int) -> list[dict[str, Any]]:
    """Write the HTTP rules as Envoy's RBAC filters, as Istio does: one for DENY before one for ALLOW."""
    method = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
    denied = {"deny": _envoy_policy([_envoy_path(f"{DENIED_PREFIX}/")], [{"any": True}])}
    allowed = {
        f"allow-{number:05}": _envoy_policy(
            [{"and_rules": {"rules": [method, _envoy_path(prefix)]}}], [_envoy_caller(CALLER_ID)]
        )
        for number, prefix in enumerate(prefixes(rules - 1))
    }
    return [{"action": "DENY", "policies": denied}, {"action": "ALLOW", "policies": allowed}]


def envoy_tcp(rules: int) -> list[dict[str, Any]]:
    """Write the TCP rules for Envoy's network filter."""
    source = {"direct_remote_ip": {"address_prefix": DENIED_SOURCE, "prefix_len": 32}}
    allowed = {
        f"allow-{number:05}": _envoy_policy([{"any": True}], [_envoy_caller(caller)])
        for number, caller in enumerate(callers(rules - 1))
    }
    denied = {"deny": _envoy_policy([{"any": True}], [source])}
    return [{"action": "DENY", "policies": denied}, {"action": "ALLOW", "policies": allowed}]


def _http_rules(count: int, mutual: bool) -> Iterator[Rule]:
    source = {"from": [{"source": {"principals": [CALLER_ID.removeprefix("spiffe://")]}}]} if mutual else {}
    for prefix in prefixes(count):
        yield {**source, "to": [{"operation": {"methods": ["GET"], "paths": [f"{prefix}*"]}}]}


def _tcp_rules(count: int, mutual: bool) -> Iterator[Rule]:
    if mutual:
        for caller in callers(count):
            yield {"from": [{"source": {"principals": [caller.removeprefix("spiffe://")]}}]}
        return
    for number in range(count - 1):
        yield {"from": [{"source": {"ipBlocks": [f"10.0.{number // 250}.{number % 250}"]}}]}
    yield {"from": [{"source": {"ipBlocks": ["127.0.0.1"]}}]}


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _envoy_policy(permissions: Sequence[Rule], principals: Sequence[Rule]) -> dict[str, Any]:
    return {"permissions": permissions, "principals": principals}


def _envoy_path(prefix: str) -> Rule:
    return {"url_path": {"path": {"prefix": prefix}}}


def _envoy_caller(spiffe_id: str) -> Rule:
    return {"authenticated": {"principal_name": {"exact": spiffe_id}}}
