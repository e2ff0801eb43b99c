"""The small values that travel from stage to stage. No behaviour beyond what a value can say of itself.

Attributes for policy are text where policy compares text and bytes where the wire is compared line by line.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NewType

from certs.spiffe import SpiffeId
from proxy.errors import Reason

Generation = NewType("Generation", int)
"""Counts the snapshots of one kind (policy, or certificates) that this process has taken, from 1."""


class Protocol(enum.Enum):
    """How the bytes of a port or a service are read (design: `protocol`)."""

    HTTP = "http"
    TCP = "tcp"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """A peer whose chain was verified, as its leaf certificate says.

    `not_after` is in seconds since the epoch; `serial` is hexadecimal; `fingerprint` is the lower-case hexadecimal
    SHA-256 of the leaf's DER (the `Hash` of x-forwarded-client-cert). `root` is the SHA-256 of the DER of the root that
    its chain led to: when trust changes, it says whether that root may still vouch for this name. `chain` is the chain
    as DER, leaf first and root last, empty where nobody kept it: a new revocation list judges it again.
    """

    spiffe_id: SpiffeId
    not_after: float
    serial: str
    fingerprint: str
    root: bytes = b""
    chain: tuple[bytes, ...] = field(default=(), repr=False, compare=False)

    @property
    def principal(self) -> str:
        """The identity as policies write it: the SPIFFE ID without `spiffe://`."""
        return str(self.spiffe_id)[len("spiffe://") :]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionAttributes:
    """What is known of a connection before a byte of its content is read; addresses are text without a port."""

    peer: PeerIdentity | None
    source_ip: str
    destination_ip: str
    destination_port: int
    sni: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A JSON Web Token whose signature, issuer, audience and times hold (RFC 7519).

    `claims` is the payload as it was signed. `expires_at` is when the token no longer counts, in seconds since the
    epoch: `exp` and the clock skew granted, infinite for a token without `exp`. `space_delimited` names the claims
    whose text is a list, as its issuer's rule says.
    """

    issuer: str
    subject: str
    claims: Mapping[str, Any]
    expires_at: float = math.inf
    space_delimited: frozenset[str] = frozenset({"scope", "permission"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAttributes:
    """What a policy can see of one request.

    `path` is the normalised path without query, `host` the authority as sent (port not stripped), `headers` every
    line as (lower-case name, value) in the order received, repeated names repeated. `token` is the verified token
    that the request carries, None without one.
    """

    method: str
    path: str
    host: str
    headers: Sequence[tuple[bytes, bytes]]
    token: VerifiedToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is kept of a denied call to explain it later: of headers and claims only what policies look at, cut short.

    `request` is None for an opaque connection. `target` is the target as sent, "" where that is not known.
    `is_complete` is false when something that policy looks at was too long to keep.
    """

    connection: ConnectionAttributes
    request: RequestAttributes | None = None
    target: str = ""
    is_complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to forward. Only `proxy.policy` makes one; forwarding cannot begin without one.

    `rule` names what allowed it, in Istio's form (`ns[demo]-policy[orders]-rule[0]`) or in words for what is no
    policy file (`default[allow-all]`, `outbound[orders]`). `peer` is the identity that the permit speaks of: inbound
    the caller, outbound the verified server. `audited` names the AUDIT rules that matched. `expires_at`, in seconds
    since the epoch, is when the token ends that the permit stands on.
    """

    peer: PeerIdentity | None
    rule: str
    generation: Generation
    audited: tuple[str, ...] = ()
    expires_at: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """No leave to forward, and why.

    `rule` is the DENY rule that matched or "none" when no ALLOW rule did. `explanation` is a sentence for the
    operator: the clause that decided, with the value seen and the value wanted. `nearest_miss` is the ALLOW rule that
    came closest and the clause that failed in it ("" when no ALLOW rule exists). The caller sees neither. `asked` is
    what was judged, where policy was asked at all.
    """

    reason: Reason
    rule: str
    generation: Generation
    explanation: str
    nearest_miss: str = ""
    audited: tuple[str, ...] = ()
    asked: Asked | None = field(default=None, repr=False, compare=False)

    @property
    def details(self) -> str:
        """Istio's `response_code_details` (spaces of the id become `_`)."""
        return self.reason.consequence.details or f"rbac_access_denied_matched_policy[{self.rule}]".replace(" ", "_")
