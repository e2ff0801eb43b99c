"""A compiled policy set, and the decision.

A snapshot never changes. A new set of files is a new snapshot, swapped by one assignment, and every permit carries the
generation of the snapshot that gave it.

The order of a decision (Istio's):

1. AUDIT rules: those that match are noted; they change nothing.
2. mutual TLS, where PeerAuthentication asks for it: a peer without identity is denied.
3. DENY rules: the first that matches denies.
4. no ALLOW policy selects the workload: `policy.default` decides.
5. ALLOW rules: the first that matches allows; otherwise denied.

"First" is by (namespace, name) of the policy, then by the number of the rule, so that the same request is always
answered with the same name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.authn import Authentication
from proxy.errors import Fault, Reason
from proxy.policy import explain
from proxy.policy.facts import Facts
from proxy.policy.kept import Kept
from proxy.policy.model import IDENTITY, Attribute, AuthorizationPolicy, MtlsMode, PolicyDefault
from proxy.policy.nearest import NearestRules
from proxy.policy.peers import PeerModes
from proxy.policy.rules import PolicyRule
from proxy.policy.table import RuleTable
from proxy.types import ConnectionAttributes, Denial, Generation, PeerIdentity, Permit, RequestAttributes

NO_RULE = "none"

CACHED: Final = IDENTITY | {Attribute.PORT, Attribute.HOST, Attribute.METHOD, Attribute.PATH}
"""What a remembered decision is remembered by. Addresses and the server name are those of one connection, header lines
and the token those of one request."""


@dataclass(frozen=True, slots=True)
class PortTables:
    """The rules of one port by what they do; `shadow_*` are those of dry-run policies. None: there are none."""

    deny: RuleTable | None = None
    allow: RuleTable | None = None
    audit: RuleTable | None = None
    shadow_deny: RuleTable | None = None
    shadow_allow: RuleTable | None = None

    @property
    def watches(self) -> bool:
        """Say whether rules stand here that note without deciding."""
        return self.audit is not None or self.shadow_deny is not None


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of every port that a rule names, and of all others."""

    by_port: Mapping[int, PortTables]
    other: PortTables

    def at(self, port: int) -> PortTables:
        """Take the tables of a port."""
        return self.by_port.get(port, self.other)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySnapshot:
    """One policy set, compiled for one workload; made by `load`.

    `source_digest` is the SHA-256 of the files, `warnings` what lint has to say. `policies` are those that select the
    workload, in the order of decisions, and `rules` all of their rules; `nearest` finds those that a denied call came
    near. `authentication` judges tokens, None when no RequestAuthentication selects the workload. A decision is
    `cacheable` when it depends on no more than peer, port, method, path and host; the permit of a request with a token
    ends with the token all the same. `kept` says what of a denied call is kept.
    """

    generation: Generation
    source_digest: str
    warnings: tuple[Fault, ...]
    default: PolicyDefault
    has_allow: bool
    has_shadow_allow: bool
    cacheable: bool
    modes: PeerModes = field(repr=False)
    http: Tables = field(repr=False)
    opaque: Tables = field(repr=False)
    policies: tuple[AuthorizationPolicy, ...] = field(repr=False)
    rules: tuple[PolicyRule, ...] = field(repr=False)
    authentication: Authentication | None = field(repr=False)
    nearest: NearestRules = field(repr=False)
    kept: Kept = field(repr=False)

    @property
    def allow_rules(self) -> tuple[PolicyRule, ...]:
        """The rules that can allow: those of enforced ALLOW policies."""
        return self.nearest.rules

    def mode(self, port: int) -> MtlsMode:
        """Say which mode of PeerAuthentication holds on a workload port."""
        return self.modes.at(port)

    def requires_mtls(self, port: int) -> bool:
        """Say whether PeerAuthentication refuses peers without a verified certificate on this workload port."""
        return self.modes.requires_mtls(port)

    def admits_connection(self, attributes: ConnectionAttributes) -> Denial | None:
        """Judge a connection to an HTTP port before any request is read; None: go on and judge the requests."""
        if attributes.peer is None and self.modes.requires_mtls(attributes.destination_port):
            return self._without_mtls(Facts(attributes, None), ())
        return None

    def connection(self, attributes: ConnectionAttributes) -> Permit | Denial:
        """Judge a connection whose bytes are opaque: identity, addresses and ports are all that there is.

        A DENY rule that would have to look at HTTP denies with DENIED_PROTOCOL_OPAQUE when the rest of it matches.
        """
        return self._judge(Facts(attributes, None), self.opaque.at(attributes.destination_port))

    def request(self, attributes: ConnectionAttributes, request: RequestAttributes) -> Permit | Denial:
        """Judge one HTTP request.

        >>> from proxy.policy.examples import snapshot_of, web, get
        >>> snapshot = snapshot_of('''
        ... apiVersion: security.istio.io/v1
        ... kind: AuthorizationPolicy
        ... metadata: {name: orders, namespace: demo}
        ... spec:
        ...   rules:
        ...   - from: [{source: {principals: [cluster.local/ns/demo/sa/web]}}]
        ...     to: [{operation: {methods: [GET], paths: ["/orders/*"]}}]
        ... ''')
        >>> snapshot.request(web, get("/orders/7")).rule
        'ns[demo]-policy[orders]-rule[0]'
        >>> snapshot.request(web, get("/admin")).nearest_miss
        'ns[demo]-policy[orders]-rule[0] (policy.yaml:7): `paths`: saw "/admin", wanted "/orders/*"'
        """
        return self._judge(Facts(attributes, request), self.http.at(attributes.destination_port))

    def _judge(self, facts: Facts, tables: PortTables) -> Permit | Denial:
        audited = self._audited(facts, tables) if tables.watches or self.has_shadow_allow else ()
        if facts.peer is None and self.modes.requires_mtls(facts.connection.destination_port):
            return self._without_mtls(facts, audited)
        if tables.deny is not None and (denying := tables.deny.first(facts)) is not None:
            reason = Reason.DENIED_PROTOCOL_OPAQUE if denying.loses_http else Reason.DENIED_BY_POLICY
            sentence = explain.denied_opaque if denying.loses_http else explain.denied_by
            return Denial(
                reason=reason,
                rule=denying.rule.id,
                generation=self.generation,
                explanation=sentence(denying.rule, facts),
                audited=audited,
                asked=self.kept.of(facts),
            )
        if not self.has_allow:
            return self._by_default(facts, audited)
        if tables.allow is not None and (allowing := tables.allow.first(facts)) is not None:
            return self._permit(facts, allowing.rule.id, audited)
        return self._no_rule(facts, Reason.DENIED_BY_POLICY, explain.no_rule(facts), audited)

    def _by_default(self, facts: Facts, audited: tuple[str, ...]) -> Permit | Denial:
        default = self.default
        match default:
            case PolicyDefault.ALLOW_ALL:
                allowed = True
            case PolicyDefault.ALLOW_AUTHENTICATED:
                allowed = facts.peer is not None
            case PolicyDefault.AUDIT:
                allowed = True
                audited = (*audited, f"default[{PolicyDefault.DENY.value}]")
            case PolicyDefault.DENY:
                allowed = False
        if allowed:
            return self._permit(facts, f"default[{default.value}]", audited)
        sentence = explain.by_default(facts, default.value)
        return self._no_rule(facts, Reason.DENIED_BY_DEFAULT, sentence, audited)

    def _permit(self, facts: Facts, rule: str, audited: tuple[str, ...]) -> Permit:
        token = facts.token
        return Permit(
            peer=facts.peer,
            rule=rule,
            generation=self.generation,
            audited=audited,
            expires_at=token.expires_at if token is not None else math.inf,
        )

    def _without_mtls(self, facts: Facts, audited: tuple[str, ...]) -> Denial:
        sentence = explain.without_mtls(facts, self.modes.said_by(facts.connection.destination_port))
        return Denial(
            reason=Reason.CERTIFICATE_REQUIRED,
            rule=NO_RULE,
            generation=self.generation,
            explanation=sentence,
            audited=audited,
            asked=self.kept.of(facts),
        )

    def _no_rule(self, facts: Facts, reason: Reason, sentence: str, audited: tuple[str, ...]) -> Denial:
        return Denial(
            reason=reason,
            rule=NO_RULE,
            generation=self.generation,
            explanation=sentence,
            nearest_miss=explain.nearest_miss(self.nearest, facts),
            audited=audited,
            asked=self.kept.of(facts),
        )

    def _audited(self, facts: Facts, tables: PortTables) -> tuple[str, ...]:
        """Name the AUDIT rules that match, and what dry-run policies would have denied."""
        noted: dict[str, None] = {}
        if tables.audit is not None:
            for audit in tables.audit.all(facts):
                noted[audit.rule.id] = None
        if tables.shadow_deny is not None and (denying := tables.shadow_deny.first(facts)) is not None:
            noted[f"dry-run-denied[{denying.rule.id}]"] = None
        elif self.has_shadow_allow and (tables.shadow_allow is None or tables.shadow_allow.first(facts) is None):
            noted[f"dry-run-denied[{NO_RULE}]"] = None
        return tuple(noted)


def outbound(service: str, server: PeerIdentity | None, generation: Generation) -> Permit:
    """Permit a call to a configured service whose server proved one of the service's identities.

    The policy kinds speak to inbound traffic only. Outbound the configuration says which service may be called and
    who must answer; the verification of that identity comes before this, and the permit names it. `server` is None
    for a service that the configuration calls in plaintext (`tls: none`).

    >>> from proxy.policy.examples import web
    >>> outbound("orders", web.peer, Generation(1)).rule
    'outbound[orders]'
    """
    return Permit(peer=server, rule=f"outbound[{service}]", generation=generation)
