"""Writes policies of many rules, of several kinds, with a request that the last rule allows and one that none does.

A set is spread over documents of a hundred rules, as nobody writes a thousand into one. Each kind says by what its
rules differ, and so what has to be looked up to find the one that matches. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.configs import CALLER, NAMESPACE, TRUST_DOMAIN
from certs.spiffe import SpiffeId, TrustDomain
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import ConnectionAttributes, Generation, PeerIdentity, RequestAttributes, VerifiedToken

RULES_OF_A_DOCUMENT: Final = 100
_WEB: Final = f"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{CALLER}"

Rule = Mapping[str, Any]
Call = tuple[ConnectionAttributes, RequestAttributes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of rules: how rule n is written, and the request that rule n allows."""

    name: str
    rule: Callable[[int], Rule]
    call: Callable[[int], Call]


def _operation(**fields: Any) -> Rule:
    return {"from": [{"source": {"principals": [_WEB]}}], "to": [{"operation": fields}]}


def _condition(key: str, value: str) -> Rule:
    return {"when": [{"key": key, "values": [value]}]}


def _call(
    path: str = "/orders/7", *, who: str = _WEB, headers: Mapping[str, str] | None = None, group: str = ""
) -> Call:
    peer = PeerIdentity(spiffe_id=SpiffeId.parse(f"spiffe://{who}"), not_after=4e9, serial="1", fingerprint="00" * 32)
    lines = {"user-agent": "curl/8.5.0", "accept": "*/*", "x-request-id": "1", **(headers or {})}
    token = VerifiedToken(issuer="issuer.example", subject="alice", claims={"groups": [group]}) if group else None
    return (
        ConnectionAttributes(peer=peer, source_ip="10.0.0.7", destination_ip="10.0.0.8", destination_port=8080),
        RequestAttributes(
            method="GET",
            path=path,
            host="orders:8080",
            headers=tuple((name.encode(), value.encode()) for name, value in lines.items()),
            token=token,
        ),
    )


PREFIX: Final = Kind(
    name="path prefix (/api/v1/thing-n/*)",
    rule=lambda n: _operation(methods=["GET"], paths=[f"/api/v1/thing-{n}/*"]),
    call=lambda n: _call(f"/api/v1/thing-{n}/7"),
)
# A path may end in anything, so nothing is looked up by its end: these rules are tried one after the other.
UNFILED: Final = Kind(
    name="path suffix (*/thing-n)",
    rule=lambda n: _operation(methods=["GET"], paths=[f"*/thing-{n}"]),
    call=lambda n: _call(f"/api/v1/thing-{n}"),
)
KINDS: Final = (
    PREFIX,
    Kind(
        name="method and path",
        rule=lambda n: _operation(methods=["GET"], paths=[f"/api/v1/thing-{n}"]),
        call=lambda n: _call(f"/api/v1/thing-{n}"),
    ),
    Kind(
        name="caller and path template",
        rule=lambda n: {
            "from": [{"source": {"principals": [f"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/caller-{n % 30}"]}}],
            "to": [{"operation": {"paths": [f"/thing-{n // 30}/{{*}}/parts"]}}],
        },
        call=lambda n: _call(f"/thing-{n // 30}/7/parts", who=f"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/caller-{n % 30}"),
    ),
    Kind(
        name="namespace",
        rule=lambda n: {"from": [{"source": {"namespaces": [f"team-{n}"]}}]},
        call=lambda n: _call(who=f"{TRUST_DOMAIN}/ns/team-{n}/sa/{CALLER}"),
    ),
    Kind(
        name="header",
        rule=lambda n: _condition("request.headers[x-tenant]", f"tenant-{n}"),
        call=lambda n: _call(headers={"x-tenant": f"tenant-{n}"}),
    ),
    Kind(
        name="claim of a token",
        rule=lambda n: _condition("request.auth.claims[groups]", f"group-{n}"),
        call=lambda n: _call(group=f"group-{n}"),
    ),
    UNFILED,
)


def documents(kind: Kind, rules: int) -> list[dict[str, Any]]:
    """Write `rules` rules as ALLOW policies of the workload's namespace."""
    return [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": f"rules-{first:05}", "namespace": NAMESPACE},
            "spec": {"rules": [kind.rule(n) for n in range(first, min(first + RULES_OF_A_DOCUMENT, rules))]},
        }
        for first in range(0, rules, RULES_OF_A_DOCUMENT)
    ]


def as_text(kind: Kind, rules: int) -> str:
    """Write the documents as one file of YAML."""
    return "".join(f"---\n{json.dumps(document)}\n" for document in documents(kind, rules))


def compiled(kind: Kind, rules: int) -> PolicySnapshot:
    """Compile the documents, as a sidecar does."""
    return load(
        {"rules.yaml": as_text(kind, rules).encode()},
        workload=Workload(
            namespace=NAMESPACE,
            service_account="orders",
            name="orders-1",
            labels={},
            trust_domain=TrustDomain(TRUST_DOMAIN),
        ),
        settings=PolicySettings(default=PolicyDefault.DENY),
        generation=Generation(1),
    )
