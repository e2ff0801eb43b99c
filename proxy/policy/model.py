"""What policy files say, as values: the form between the documents and the compiled snapshot.

A rule is written as lists of alternatives whose fields must all hold. `values` and `notValues` of one field are two
conditions that must both hold, so everything below a rule comes down to one thing, a `Clause`, and a rule reads

    rule = (no sources or any source) and (no operations or any operation) and every condition
    source, operation = every clause of it
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from certs.spiffe import TrustDomain
from proxy.authn.rules import JwtRule


class PolicyDefault(enum.Enum):
    """What holds for a workload that no ALLOW policy selects (`policy.default`).

    DENY refuses. ALLOW_AUTHENTICATED takes every verified identity. ALLOW_ALL is Istio's behaviour. AUDIT allows and
    records in the permit what DENY would have refused. DENY rules hold under all four.
    """

    DENY = "deny"
    ALLOW_AUTHENTICATED = "allow-authenticated"
    ALLOW_ALL = "allow-all"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The workload that policies are read for; selectors look at its namespace and labels."""

    namespace: str
    service_account: str
    name: str
    labels: Mapping[str, str]
    trust_domain: TrustDomain
    trust_domain_aliases: tuple[TrustDomain, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What the configuration says about policy.

    `trusted_proxies` is how many addresses at the end of x-forwarded-for were written by proxies of ours; 0 means that
    the header is not looked at. `jwks_allow_loopback` admits http and loopback as `jwksUri`.
    """

    default: PolicyDefault
    root_namespace: str = "istio-system"
    trusted_proxies: int = 0
    jwks_allow_loopback: bool = False


class Action(enum.Enum):
    """What a matching AuthorizationPolicy does."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


class Attribute(enum.Enum):
    """What a clause looks at."""

    PRINCIPAL = "principal"
    NAMESPACE = "namespace"
    SERVICE_ACCOUNT = "service account"
    TRUST_DOMAIN = "trust domain"
    SOURCE_IP = "source address"
    REMOTE_IP = "remote address"
    DESTINATION_IP = "destination address"
    PORT = "port"
    SNI = "server name"
    HOST = "host"
    METHOD = "method"
    PATH = "path"
    HEADER = "header"
    REQUEST_PRINCIPAL = "request principal"
    AUDIENCES = "audiences"
    PRESENTER = "presenter"
    CLAIM = "claim"


TOKEN: Final = frozenset({Attribute.REQUEST_PRINCIPAL, Attribute.AUDIENCES, Attribute.PRESENTER, Attribute.CLAIM})
"""What a request without a verified token lacks."""

HTTP_ONLY: Final = TOKEN | {Attribute.HOST, Attribute.METHOD, Attribute.PATH, Attribute.HEADER}
"""What exists only inside HTTP: an opaque connection has none of it."""

IDENTITY: Final = frozenset(
    {Attribute.PRINCIPAL, Attribute.NAMESPACE, Attribute.SERVICE_ACCOUNT, Attribute.TRUST_DOMAIN}
)
"""What a peer without a certificate lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One list of values that one attribute must match, or must not match when `negated`.

    `name` is the field as written (`notPaths`, `request.headers[x-role]`), `header` the lower-case header name of a
    HEADER clause, `claim` the way to the claim of a CLAIM clause (`request.auth.claims[a][b]`: ("a", "b")), `line` and
    `column` the place of the field.
    """

    attribute: Attribute
    name: str
    negated: bool
    values: tuple[str, ...]
    line: int
    column: int
    header: str = ""
    claim: tuple[str, ...] = ()

    @property
    def is_http(self) -> bool:
        """Say whether an opaque connection leaves this clause without an answer."""
        return self.attribute in HTTP_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One item of `rules`. Empty `sources` or `operations` mean that the file sets none: any will do."""

    sources: tuple[tuple[Clause, ...], ...]
    operations: tuple[tuple[Clause, ...], ...]
    conditions: tuple[Clause, ...]
    line: int
    column: int

    def clauses(self) -> Iterator[Clause]:
        """Yield every clause of the rule in the order of the file."""
        for alternative in (*self.sources, *self.operations):
            yield from alternative
        yield from self.conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a policy was written: file, number of the document in it, and place."""

    file: str
    document: int
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    """One AuthorizationPolicy; `selector` None or empty means every workload in scope."""

    namespace: str
    name: str
    origin: Origin
    action: Action
    rules: tuple[Rule, ...]
    selector: Mapping[str, str]
    dry_run: bool = False

    def rule_id(self, index: int) -> str:
        """Name a rule in Istio's form."""
        return f"ns[{self.namespace}]-policy[{self.name}]-rule[{index}]"


class MtlsMode(enum.Enum):
    """A mode of PeerAuthentication; UNSET inherits from the next wider scope."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """One PeerAuthentication; `ports` are the workload ports with a mode of their own."""

    namespace: str
    name: str
    origin: Origin
    mode: MtlsMode
    ports: Mapping[int, MtlsMode]
    selector: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication:
    """One RequestAuthentication: whose tokens count; all that select a workload hold together."""

    namespace: str
    name: str
    origin: Origin
    rules: tuple[JwtRule, ...]
    selector: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Everything that a directory of policy files says, in the order of (file name, document)."""

    authorization: tuple[AuthorizationPolicy, ...]
    peer_authentication: tuple[PeerAuthentication, ...]
    request_authentication: tuple[RequestAuthentication, ...] = ()


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Say whether every label of the selector is on the workload, with exactly that value."""
    return all(labels.get(key) == value for key, value in selector.items())
