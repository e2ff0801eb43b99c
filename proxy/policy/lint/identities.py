"""RM02: who is named, whether anybody is called so, and what a peer without a certificate makes of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.documents import quoted
from proxy.policy.lint.scene import Known, Remark, Scene
from proxy.policy.model import (
    IDENTITY,
    Action,
    Attribute,
    AuthorizationPolicy,
    Clause,
    MtlsMode,
    PeerAuthentication,
    PolicyDefault,
    Rule,
)
from proxy.policy.peers import PeerModes
from proxy.policy.principals import is_own, names_trust_domain

_NEAR: Final = 0.85
"""How alike two names must be (0 to 1) to take one for a slip of the other: about one letter in seven."""

_MAX_HINTS: Final = 256
"""Names that a value is compared with: about 2 ms for each value. Nobody tells more names apart by eye either."""


def identity_remarks(clause: Clause, scene: Scene) -> Iterator[Remark]:
    """Judge the names of a clause about identity."""
    for value in clause.values:
        match clause.attribute:
            case Attribute.PRINCIPAL if value != "*":
                yield from _principal(value, scene)
            case Attribute.NAMESPACE:
                if value.endswith("*") and "*" not in value[:-1] and value[:-1] and value[-2].isalnum():
                    message = f"{quoted(value)} also matches {quoted(value[:-1] + 'evil')}"
                    yield Remark(
                        "RM0207", message, f"end at a dash, {quoted(value[:-1] + '-*')}, or write the names out"
                    )
                yield from _namespace(value, scene.known)
            case Attribute.SERVICE_ACCOUNT:
                yield from _account(value, scene.known)
            case Attribute.TRUST_DOMAIN if scene.trust_domains and not is_own(value, scene.trust_domains):
                yield _foreign(value)


def _principal(value: str, scene: Scene) -> Iterator[Remark]:
    trust_domain, _, path = value.partition("/")
    if names_trust_domain(value) and scene.trust_domains and not is_own(trust_domain, scene.trust_domains):
        yield _foreign(trust_domain)
    parts = value.split("/")
    if "*" not in value:
        if len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
            message = f"{quoted(value)} is not of the form that a ServiceAccount's identity has"
            yield Remark("RM0204", message, "write <trust domain>/ns/<namespace>/sa/<account>")
        else:
            yield from _account(f"{parts[2]}/{parts[4]}", scene.known)
    elif value.startswith("*") and "*" not in value[1:]:
        if not value.startswith("*/"):
            message = f"{quoted(value)} also matches {quoted('cluster.local/ns/evil/sa/evil' + value[1:])}"
            yield Remark("RM0207", message, "begin behind the star with a slash")
        elif path.startswith("ns/") and len(parts) == 5 and parts[3] == "sa":
            yield from _account(f"{parts[2]}/{parts[4]}", scene.known)
    elif value.endswith("*") and "*" not in value[:-1] and not value.endswith("/*") and len(parts) < 5:
        message = f"{quoted(value)} also matches {quoted(value[:-1] + 'evil/...')}"
        yield Remark("RM0207", message, f"end at the slash: {quoted(value[:-1] + '/*')}")


def _foreign(trust_domain: str) -> Remark:
    message = f"{quoted(trust_domain)} is neither the trust domain of this mesh nor an alias of it"
    return Remark("RM0201", message, "write cluster.local for the mesh's own, unless a federated domain is meant")


def _account(value: str, known: Known) -> Iterator[Remark]:
    namespace = value.partition("/")[0]
    if known.accounts and value not in known.accounts:
        yield Remark("RM0202", f"nobody has the service account {quoted(value)}", _nearest(value, known.accounts))
    elif not known.accounts and (near := _slip(value, known.hinted_accounts)):
        yield Remark("RM0202", f"nobody is known with the service account {quoted(value)}", _did_you_mean(near))
    elif not known.accounts:
        yield from _namespace(namespace, known)


def _namespace(value: str, known: Known) -> Iterator[Remark]:
    if "*" in value:
        return
    if known.namespaces:
        if value not in known.namespaces:
            message = f"no namespace is called {quoted(value)}"
            yield Remark("RM0203", message, _nearest(value, known.namespaces))
    elif near := _slip(value, known.hinted_namespaces):
        yield Remark("RM0203", f"no namespace {quoted(value)} is known", _did_you_mean(near))


def _nearest(value: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(value, sorted(known), n=1, cutoff=0.7)
    return _did_you_mean(near[0]) if near else ""


def _slip(value: str, known: frozenset[str]) -> str:
    """Name the known name that differs by a slip, "" when the value is known itself or like none."""
    if not known or value in known or len(known) > _MAX_HINTS:
        return ""
    near = difflib.get_close_matches(value, sorted(known), n=1, cutoff=_NEAR)
    # api-1 and api-2 are two names, not a slip
    return near[0] if near and _letters(near[0]) != _letters(value) else ""


def _letters(text: str) -> str:
    return "".join(c for c in text if not c.isdigit())


def _did_you_mean(name: str) -> str:
    return f"did you mean {name}?"


# --- peers without identity ---


def plaintext_remarks(clause: Clause, action: Action, source: str) -> Iterator[Remark]:
    """Judge an identity clause where `source` lets peers without identity in."""
    if clause.attribute not in IDENTITY or clause.values == ("*",):
        return
    hint = 'ask for mutual TLS by PeerAuthentication STRICT, or deny `notPrincipals: ["*"]`'
    if clause.negated:
        outcome = "is denied" if action is Action.DENY else "is let in"
        yield Remark("RM0205", f"a peer without identity satisfies it and {outcome}; {source} takes such peers", hint)
    elif not clause.negated and action is Action.DENY:
        yield Remark("RM0206", f"a peer without identity evades it; {source} takes such peers", hint)


def who_takes_plaintext(
    policy: AuthorizationPolicy, rule: Rule, peers: Iterable[PeerAuthentication], modes: PeerModes | None, scene: Scene
) -> str:
    """Name what lets peers without identity reach a rule; "" when nothing does.

    With `modes`, those of the workload at hand, the ports of the rule count. Without, a policy counts as open when
    some workload that it may select is.
    """
    if modes is not None:
        named = _named_ports(rule)
        of_ports = [modes.at(port) for port in named]
        in_question = of_ports if named else [modes.mode, *modes.ports.values()]
        is_open = any(mode is not MtlsMode.STRICT for mode in in_question)
        return (modes.source if modes.mode is not MtlsMode.STRICT else "a port of this workload") if is_open else ""
    in_root = policy.namespace == scene.settings.root_namespace
    near = [
        peer
        for peer in peers
        if (in_root or peer.namespace in (policy.namespace, scene.settings.root_namespace))
        and all(policy.selector.get(key, value) == value for key, value in peer.selector.items())
    ]
    own = [peer for peer in near if not peer.selector and peer.namespace == policy.namespace and not in_root]
    for peer in near:
        is_overruled = not peer.selector and own and peer.namespace != policy.namespace
        if not is_overruled and {peer.mode, *peer.ports.values()} & {MtlsMode.PERMISSIVE, MtlsMode.DISABLE}:
            return f"PeerAuthentication {peer.namespace}/{peer.name}"
    if scene.settings.default is PolicyDefault.ALLOW_ALL and not any(peer.mode is MtlsMode.STRICT for peer in near):
        return "the default allow-all"
    return ""


def _named_ports(rule: Rule) -> set[int]:
    """Collect the ports that a rule is limited to; empty when some part of it is not limited."""
    in_conditions = _ports(rule.conditions)
    if in_conditions:
        return in_conditions
    of_operations = [_ports(operation) for operation in rule.operations]
    return set().union(*of_operations) if of_operations and all(of_operations) else set()


def _ports(clauses: Iterable[Clause]) -> set[int]:
    named = [clause for clause in clauses if clause.attribute is Attribute.PORT and not clause.negated]
    return {int(value) for clause in named for value in clause.values}
