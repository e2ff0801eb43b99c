"""How our engine judges what Envoy is asked: strict parser, normal form, token, policy, from the same bytes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from callers import ALIAS, OWN, Caller
from envoy_claims import NAMESPACE, token
from envoy_judge import PolicyFilters, Verdict
from envoy_rbac import Json, Target, rbac_filters

from certs.spiffe import SpiffeId, TrustDomain
from proxy.authn import forwarded
from proxy.errors import ProtocolError
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import header_attributes
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.types import ConnectionAttributes, Generation, PeerIdentity, Permit, RequestAttributes

LABELS: Final = {"app": "orders"}
TARGET: Final = Target(namespace=NAMESPACE, labels=LABELS, trust_domains=(OWN, ALIAS))


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, or an opaque connection when `method` is empty; `token` is a key of `CLAIMS`."""

    caller: Caller
    method: str = ""
    target: str = "/"
    host: str = "h"
    headers: tuple[tuple[str, str], ...] = ()
    token: str = ""

    @property
    def head(self) -> bytes:
        """The request on the wire."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.token:
            lines.append(f"Authorization: Bearer {token(self.token)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def filters(policies: Sequence[Json], target: Target = TARGET) -> PolicyFilters:
    """Translate a set for HTTP and for TCP."""
    return PolicyFilters(http=rbac_filters(policies, target, tcp=False), tcp=rbac_filters(policies, target, tcp=True))


def compiled(
    policies: Sequence[Json], default: str = "allow-all", trusted_proxies: int = 0, **more: Any
) -> PolicySnapshot:
    """Our snapshot of a set; the default is the world of Istio."""
    workload = Workload(
        namespace=NAMESPACE,
        service_account="orders",
        name="orders-1",
        labels=LABELS,
        trust_domain=TrustDomain(OWN),
        trust_domain_aliases=(TrustDomain(ALIAS),),
    )
    return load(
        {f"{index:03}.json": json.dumps(each).encode() for index, each in enumerate(policies)},
        workload=workload,
        settings=PolicySettings(default=PolicyDefault(default), trusted_proxies=trusted_proxies),
        generation=Generation(1),
        **more,
    )


def connection_of(call: Call) -> ConnectionAttributes:
    """What our sidecar knows of a connection."""
    peer = None
    if call.caller.principal:
        spiffe_id = SpiffeId.parse(f"spiffe://{call.caller.principal}")
        peer = PeerIdentity(spiffe_id=spiffe_id, not_after=4102444800.0, serial="01", fingerprint="00" * 32)
    return ConnectionAttributes(
        peer=peer,
        source_ip=call.caller.ip,
        destination_ip=call.caller.to,
        destination_port=call.caller.port,
        sni=call.caller.sni,
    )


def our_verdict(snapshot: PolicySnapshot, call: Call, mode: str = "base") -> Verdict:
    """What our engine says about a request, in the same words as Envoy."""
    try:
        head = parse_request_head(call.head, limits=HeadLimits(), normalization=PathNormalization(mode))
    except ProtocolError:
        return Verdict(status=400)
    verified = None
    if snapshot.authentication is not None:
        authenticated = snapshot.authentication.authenticate(head, lambda uri: None, time.time())
        if authenticated.failure is not None:
            return Verdict(status=authenticated.failure.consequence.status)
        verified = authenticated.token
        head = forwarded(head, authenticated, snapshot.authentication)
    request = RequestAttributes(
        method=head.method.decode(),
        path=head.path.decode("latin-1"),
        host=head.authority.decode("latin-1"),
        headers=header_attributes(head),
        token=verified,
    )
    answer = snapshot.request(connection_of(call), request)
    dry_run = [each for each in answer.audited if each.startswith("dry-run-denied[")]
    rule = "" if answer.rule.startswith("default[") else answer.rule
    allowed = isinstance(answer, Permit)
    return Verdict(
        status=200 if allowed else 403,
        denied_by="" if allowed else rule,
        allowed_by=rule if allowed else "",
        path=(head.path + head.query).decode("latin-1"),
        claim=_value(head, b"x-claim"),
        payload=_value(head, b"x-payload"),
        audited=len(answer.audited) > len(dry_run),
        dry_run_denied_by=dry_run[0].removeprefix("dry-run-denied[").removesuffix("]") if dry_run else "",
    )


def _value(head: RequestHead, name: bytes) -> str:
    return b",".join(line.value for line in head.fields if line.name == name).decode("latin-1")


def ours_lets_through(snapshot: PolicySnapshot, call: Call) -> bool:
    """What our engine says about an opaque connection."""
    return isinstance(snapshot.connection(connection_of(call)), Permit)


def comparable(verdict: Verdict) -> Verdict:
    """Leave out what only one side tells: a refused request has no path, and after a denial no dry run is judged."""
    if verdict.status == 400:
        return Verdict(status=400)
    dry_run = "" if verdict.status == 403 else verdict.dry_run_denied_by
    return dataclasses.replace(verdict, forwarded_certificate="", dry_run_denied_by=dry_run)
