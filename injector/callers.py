"""Which callers the policies of one workload let through, judged before a byte of a request is known.

The clauses are the engine's own (`proxy.policy.rules`), narrowed to a port as it narrows them. What it compares with a
peer's identity is compared here; what it would read from a request or a handshake is neither yes nor no: MAYBE. A rule
matches for sure when each of its clauses does.

Callers are of three kinds: pods of the manifests, whose identity is known and whose address is not; pods of a namespace
that only policies name; and addresses outside the mesh, whose identity is not known.
"""

from __future__ import annotations

import enum
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from certs.spiffe import SpiffeId, parse_trust_domain
from injector.blocks import EVERYWHERE, NOWHERE, Blocks
from injector.mesh import Note, Origin, Workload
from injector.ports import Ports
from proxy.policy import model
from proxy.policy.clauses import ADDRESSES, CompiledClause
from proxy.policy.facts import Facts
from proxy.policy.model import (
    IDENTITY,
    Action,
    Attribute,
    AuthorizationPolicy,
    Clause,
    PolicyDefault,
    PolicySet,
    selects,
)
from proxy.policy.peers import resolve_modes
from proxy.policy.rules import Alternative, PolicyRule, PortRule, narrow
from proxy.types import ConnectionAttributes, PeerIdentity

_SOURCE_ADDRESSES: Final = ADDRESSES - {Attribute.DESTINATION_IP}
"""The remote address is the source's: injected sidecars trust no proxy before them."""
_NO_PORT: Final = -1
"""What no clause can name: a positive clause fails on it, a negative one holds."""
_ANY_ACCOUNT: Final = "any"
"""Stands for the service accounts of a namespace that is not known; one of them may be called so."""
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
"""RFC 1123: what a namespace may be called; a policy may ask for any text."""
_NO_CERTIFICATE: Final = Facts(
    ConnectionAttributes(peer=None, source_ip="", destination_ip="", destination_port=0), None
)


class Answer(enum.IntEnum):
    """Whether a call is allowed, or a rule matches. `min` is "and", `max` is "or"."""

    NO = 0
    MAYBE = 1
    """What a request says decides."""
    YES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port as policies name it, None for all that none of them names.

    `arrivals` is where traffic for it comes to the pod, `protocol` what the sidecar reads there.
    """

    number: int | None
    arrivals: Ports
    protocol: str


@dataclass(frozen=True, slots=True)
class _Region:
    """Addresses from which a rule matches: `sure` whatever the request says, `possible` for some request."""

    sure: Blocks
    possible: Blocks

    def __and__(self, other: _Region) -> _Region:
        return _Region(self.sure & other.sure, self.possible & other.possible)

    def __or__(self, other: _Region) -> _Region:
        return _Region(self.sure | other.sure, self.possible | other.possible)


_ALL: Final = _Region(EVERYWHERE, EVERYWHERE)
_PART: Final = _Region(NOWHERE, EVERYWHERE)
_NONE: Final = _Region(NOWHERE, NOWHERE)


class Callers:
    """Judges the callers of one workload with a sidecar. `sources` are the workloads of the mesh."""

    def __init__(self, target: Workload, policies: PolicySet, sources: Sequence[Workload]) -> None:
        settings = target.settings
        workload = model.Workload(
            namespace=target.namespace,
            service_account=target.service_account,
            name=target.name,
            labels=target.labels,
            trust_domain=parse_trust_domain(settings.trust_domain),
        )
        policy = model.PolicySettings(
            default=PolicyDefault(settings.policy_default), root_namespace=settings.root_namespace
        )
        in_scope = (policy.root_namespace, workload.namespace)
        enforced = [
            each
            for each in policies.authorization
            if each.namespace in in_scope
            and selects(each.selector, workload.labels)
            and not each.dry_run
            and each.action is not Action.AUDIT
        ]
        self._trust_domain = workload.trust_domain
        self._default = policy.default
        self._has_allow = any(each.action is Action.ALLOW for each in enforced)
        self._rules = tuple(_compiled(enforced, (str(workload.trust_domain),)))
        self._modes = resolve_modes(policies.peer_authentication, workload, policy)
        known = {peer.principal: peer for each in sources if (peer := self._maybe_peer(each)) is not None}
        self._known = tuple(_facts(peer) for peer in known.values())
        self._narrowed = functools.cache(self._narrow)
        self._judged = functools.cache(self._judge)

    @property
    def named_ports(self) -> frozenset[int]:
        """The ports that rules, or modes of mutual TLS, name by number."""
        values = (clause.values for clause in self._clauses(Attribute.PORT))
        return frozenset(int(value) for each in values for value in each) | frozenset(self._modes.ports)

    @property
    def named_namespaces(self) -> frozenset[str]:
        """The namespaces that rules let in whole, by name."""
        found = {value for clause in self._clauses(Attribute.NAMESPACE) for value in clause.values if "*" not in value}
        for clause in self._clauses(Attribute.PRINCIPAL):
            for value in clause.values:
                parts = value.split("/")
                if len(parts) == 5 and (parts[1], parts[3], parts[4]) == ("ns", "sa", "*") and "*" not in parts[2]:
                    found.add(parts[2])
        return frozenset(name for name in found if _LABEL.match(name))

    def from_pod(self, source: Workload, port: Port) -> Answer:
        """Judge the pods of a workload: those with a sidecar by its identity, and in plaintext where that is taken."""
        return self._judged(self._maybe_peer(source), port)

    def from_namespace(self, namespace: str, port: Port) -> Answer:
        """Judge the pods of a namespace of which nothing else is known."""
        return self._judged(_peer(SpiffeId.for_service_account(self._trust_domain, namespace, _ANY_ACCOUNT)), port)

    def from_outside(self, port: Port) -> Blocks:
        """Give the addresses from which somebody outside the mesh may be allowed.

        Where mutual TLS is asked for, nobody out there is known, so only those come in whom a rule names by address.
        """
        found = NOWHERE
        if not self._modes.requires_mtls(_number(port)):
            found |= self._outside(port, has_certificate=False)
        if self._modes.at(_number(port)) is not model.MtlsMode.DISABLE:
            found |= self._outside(port, has_certificate=True)
        return found

    def notes(self) -> Iterator[Note]:
        """Say which rules a NetworkPolicy cannot say whole, and whom they name that the manifests do not know."""
        for rule in self._rules:
            origin, action = Origin(rule.policy.origin.file, rule.rule.line), rule.policy.action
            looks_at = [clause.name for clause in rule.rule.clauses() if _is_undecided(clause, action)]
            if looks_at:
                named = ", ".join(f"`{name}`" for name in dict.fromkeys(looks_at))
                text = (
                    f"this {action.value} rule looks at {named}, which only a sidecar can: the connection stays open, "
                )
                yield Note(origin=origin, subject=rule.id, text=f"{text}and the sidecar judges what comes through it")
            if action is Action.ALLOW:
                yield from self._unknown_callers(rule, origin)

    def _unknown_callers(self, rule: PolicyRule, origin: Origin) -> Iterator[Note]:
        for clause in rule.rule.clauses():
            if clause.attribute not in IDENTITY or clause.negated:
                continue
            for value in clause.values:
                alone = CompiledClause(replace(clause, values=(value,)), (str(self._trust_domain),))
                strangers = (self._stranger(namespace) for namespace in self.named_namespaces)
                if not any(alone.test(facts) for facts in (*self._known, *strangers)):
                    text = f"`{clause.name}` names {value}, and no pod with a sidecar in the manifests is that: nothing"
                    yield Note(origin=origin, subject=rule.id, text=f"{text} is opened for it; give its manifests too")

    def _stranger(self, namespace: str) -> Facts:
        return _facts(_peer(SpiffeId.for_service_account(self._trust_domain, namespace, _ANY_ACCOUNT)))

    def _clauses(self, attribute: Attribute) -> Iterator[Clause]:
        """Give the positive clauses of ALLOW rules that look at an attribute; of ports, those of all rules."""
        for rule in self._rules:
            for clause in rule.rule.clauses():
                is_asking = rule.policy.action is Action.ALLOW and not clause.negated
                if clause.attribute is attribute and (is_asking or attribute is Attribute.PORT):
                    yield clause

    def _maybe_peer(self, source: Workload) -> PeerIdentity | None:
        """Give whom the target sees, None for a caller whose certificate it would not take or who has none."""
        if not source.has_sidecar or source.identity.trust_domain != self._trust_domain:
            return None
        return _peer(source.identity)

    # --- pods ---

    def _judge(self, peer: PeerIdentity | None, port: Port) -> Answer:
        number = _number(port)
        worlds = []
        if peer is not None and self._modes.at(number) is not model.MtlsMode.DISABLE:
            worlds.append(_facts(peer))
        if not self._modes.requires_mtls(number):
            worlds.append(_NO_CERTIFICATE)
        return max((self._answer(facts, port) for facts in worlds), default=Answer.NO)

    def _answer(self, facts: Facts, port: Port) -> Answer:
        deny, allow = self._narrowed(port)
        denied = max((_matches(rule, facts) for rule in deny), default=Answer.NO)
        if denied is Answer.YES:
            return Answer.NO
        if self._has_allow:
            allowed = max((_allows(rule, facts) for rule in allow), default=Answer.NO)
        else:
            allowed = Answer.YES if self._allows_by_default(facts.peer is not None) else Answer.NO
        return min(allowed, Answer.MAYBE) if denied is Answer.MAYBE else allowed

    def _allows_by_default(self, has_identity: bool) -> bool:
        match self._default:
            case PolicyDefault.ALLOW_ALL | PolicyDefault.AUDIT:
                return True
            case PolicyDefault.ALLOW_AUTHENTICATED:
                return has_identity
            case PolicyDefault.DENY:
                return False

    def _narrow(self, port: Port) -> tuple[tuple[PortRule, ...], tuple[PortRule, ...]]:
        """Give the DENY and the ALLOW rules at a port.

        Where the protocol is found out at run time, the reading as HTTP stands for both: it allows whatever some
        connection without HTTP is allowed.
        """
        is_opaque = port.protocol == "tcp"
        found: dict[Action, list[PortRule]] = {Action.DENY: [], Action.ALLOW: []}
        for rule in self._rules:
            found[rule.policy.action] += narrow(rule, _number(port), opaque=is_opaque)
        return tuple(found[Action.DENY]), tuple(found[Action.ALLOW])

    # --- outside ---

    def _outside(self, port: Port, *, has_certificate: bool) -> Blocks:
        deny, allow = self._narrowed(port)

        def wanted(clause: CompiledClause) -> _Region:
            return self._region(clause, has_certificate, is_allow=True)

        def unwanted(clause: CompiledClause) -> _Region:
            return self._region(clause, has_certificate, is_allow=False)

        if self._has_allow:
            regions = (_region_of(rule, wanted, by_address=has_certificate) for rule in allow)
            allowed = functools.reduce(_Region.__or__, regions, _NONE).possible
        else:
            is_open = not has_certificate and self._allows_by_default(has_identity=False)
            allowed = EVERYWHERE if is_open else NOWHERE
        for rule in deny if allowed else ():
            allowed -= _region_of(rule, unwanted).sure
        return allowed

    def _region(self, clause: CompiledClause, has_certificate: bool, *, is_allow: bool) -> _Region:
        written = clause.clause
        if written.attribute in _SOURCE_ADDRESSES:
            blocks = _blocks(written)
            return _Region(blocks, blocks)
        if written.attribute not in IDENTITY:
            return _PART
        if not has_certificate:
            return _ALL if clause.test(_NO_CERTIFICATE) else _NONE
        is_of_pods = is_allow and not written.negated and any(map(clause.test, self._known))
        return _NONE if is_of_pods else _PART


def _compiled(policies: Iterable[AuthorizationPolicy], trust_domains: tuple[str, ...]) -> Iterator[PolicyRule]:
    ordered = sorted(policies, key=lambda each: (each.namespace, each.name, each.origin.file, each.origin.document))
    places = [(policy, index) for policy in ordered for index in range(len(policy.rules))]
    for order, (policy, index) in enumerate(places):
        yield PolicyRule(policy, index, order, trust_domains)


def _number(port: Port) -> int:
    return _NO_PORT if port.number is None else port.number


def _peer(identity: SpiffeId) -> PeerIdentity:
    return PeerIdentity(spiffe_id=identity, not_after=math.inf, serial="", fingerprint="")


def _facts(peer: PeerIdentity) -> Facts:
    return Facts(ConnectionAttributes(peer=peer, source_ip="", destination_ip="", destination_port=0), None)


def _is_undecided(clause: Clause, action: Action) -> bool:
    """Say whether a NetworkPolicy has no word for a clause."""
    if clause.attribute in _SOURCE_ADDRESSES:
        return action is Action.DENY
    return clause.attribute not in IDENTITY | {Attribute.PORT}


# --- rules -----------------------------------------------------------------------------------------------------------


def _allows(rule: PortRule, facts: Facts) -> Answer:
    """Judge an ALLOW rule for a pod: who is named by address alone is somebody outside the mesh."""
    sources = [each for each in rule.sources or ((),) if not _is_by_address((*each, *rule.conditions))]
    return _matches(rule, facts) if len(sources) == len(rule.sources or ((),)) else _any_source(rule, sources, facts)


def _any_source(rule: PortRule, sources: list[Alternative], facts: Facts) -> Answer:
    if not sources:
        return Answer.NO
    return min(_all(rule.conditions, facts), _any(sources, facts), _any(rule.operations, facts))


def _matches(rule: PortRule, facts: Facts) -> Answer:
    return min(_all(rule.conditions, facts), _any(rule.sources, facts), _any(rule.operations, facts))


def _any(alternatives: Sequence[Alternative], facts: Facts) -> Answer:
    return max((_all(each, facts) for each in alternatives), default=Answer.YES)


def _all(clauses: Alternative, facts: Facts) -> Answer:
    return min((_holds(clause, facts) for clause in clauses), default=Answer.YES)


def _holds(clause: CompiledClause, facts: Facts) -> Answer:
    if clause.clause.attribute not in IDENTITY:
        return Answer.MAYBE
    return Answer.YES if clause.test(facts) else Answer.NO


def _is_by_address(clauses: Alternative) -> bool:
    """Say whether clauses ask for an address and for no identity."""
    asked = {each.clause.attribute for each in clauses if not each.clause.negated}
    return bool(asked & _SOURCE_ADDRESSES) and not asked & IDENTITY


def _region_of(rule: PortRule, region: Callable[[CompiledClause], _Region], *, by_address: bool = False) -> _Region:
    """Give the addresses from which a rule matches; `by_address`: only so far as it asks for addresses."""

    def every(clauses: Alternative) -> _Region:
        return functools.reduce(_Region.__and__, map(region, clauses), _ALL)

    def some(alternatives: Sequence[Alternative]) -> _Region:
        return functools.reduce(_Region.__or__, map(every, alternatives), _NONE) if alternatives else _ALL

    sources: Sequence[Alternative] = rule.sources or ((),)
    if by_address:
        sources = [each for each in sources if _asks_for_address((*each, *rule.conditions))]
        if not sources:
            return _NONE
    return every(rule.conditions) & some(sources) & some(rule.operations)


def _asks_for_address(clauses: Alternative) -> bool:
    return any(each.clause.attribute in _SOURCE_ADDRESSES and not each.clause.negated for each in clauses)


def _blocks(clause: Clause) -> Blocks:
    blocks = Blocks.of(clause.values)
    return EVERYWHERE - blocks if clause.negated else blocks
