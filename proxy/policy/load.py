"""Files -> snapshot: read all, check all, compile; all of it is taken or none."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from proxy.authn import Authentication
from proxy.errors import ConfigError, Fault
from proxy.policy.kept import Kept
from proxy.policy.lint import at_load
from proxy.policy.model import (
    Action,
    Attribute,
    AuthorizationPolicy,
    PolicySettings,
    RequestAuthentication,
    Workload,
    selects,
)
from proxy.policy.nearest import NearestRules
from proxy.policy.peers import resolve_modes
from proxy.policy.read import read_files
from proxy.policy.rules import PolicyRule, PortRule, narrow
from proxy.policy.snapshot import CACHED, PolicySnapshot, PortTables, Tables
from proxy.policy.table import RuleTable
from proxy.types import Generation

MAX_SET_BYTES: Final = 16 * 1024 * 1024
"""A whole set; 1,000 rules are about 0.3 MiB. Above it a reload would stop traffic for seconds."""

MAX_NARROWED: Final = 200_000
"""Rules times ports that get a table each (about 100 MiB). Above it ports are compared while requests wait."""

MAX_TOLD: Final = 1000
"""Faults of a set. Each becomes a line of the log at every reload; a reader of one file stops at 100."""

_OTHER_PORT: Final = -1  # what no clause can name: a positive clause fails on it, a negative one holds


def load(
    files: Mapping[str, bytes],
    *,
    workload: Workload,
    settings: PolicySettings,
    generation: Generation,
    tcp_ports: Collection[int] = (),
) -> PolicySnapshot:
    """Compile a policy directory (file name -> content) for one workload.

    `tcp_ports` are the workload ports known to carry something else than HTTP: a DENY or AUDIT rule that would lose
    a condition there is a fault. Every file counts, whatever its name: who lists a directory leaves out what is none.
    No file at all is a valid set: `policy.default` decides. Raises ConfigError with every fault of every file.

    >>> from proxy.policy.examples import workload, deny
    >>> files = {"a.yaml": b"kind: AuthorizationPolicy"}
    >>> load(files, workload=workload, settings=deny, generation=Generation(1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    proxy.errors.ConfigError: a.yaml:1:1: the document lacks `apiVersion`...
    """
    taken = {name: files[name] for name in sorted(files)}
    size = sum(map(len, taken.values()))
    if size > MAX_SET_BYTES:
        message = f"the policy files have more than {MAX_SET_BYTES} bytes together"
        largest = max(taken, key=lambda name: len(taken[name]))
        raise ConfigError([Fault(file=largest, message=message, hint="this is the largest; split the directory")])
    policies, faults, warnings = read_files(taken, workload, settings)
    selecting = sorted(
        (policy for policy in policies.authorization if _speaks_to(policy, workload, settings)),
        key=_order,
    )
    trust_domains = (workload.trust_domain, *workload.trust_domain_aliases)
    rules = _compile_rules(selecting, trust_domains, settings.trusted_proxies)
    looks_at = frozenset(clause.attribute for rule in rules for clause in rule.rule.clauses())
    faults += _lost_conditions(rules, tcp_ports)
    if faults:
        raise ConfigError(_told(faults))
    modes = resolve_modes(policies.peer_authentication, workload, settings)
    warnings += at_load(policies, selecting, modes, workload, settings, tcp_ports)
    enforced = [policy for policy in selecting if not policy.dry_run]
    return PolicySnapshot(
        generation=generation,
        source_digest=digest_of(taken),
        warnings=tuple(sorted(set(warnings))),
        default=settings.default,
        has_allow=any(policy.action is Action.ALLOW for policy in enforced),
        has_shadow_allow=any(policy.dry_run and policy.action is Action.ALLOW for policy in selecting),
        cacheable=looks_at <= CACHED,
        modes=modes,
        http=_tables(rules, opaque=False),
        opaque=_tables(rules, opaque=True),
        policies=tuple(selecting),
        rules=rules,
        authentication=_authentication(policies.request_authentication, workload, settings),
        kept=Kept(rules, settings.trusted_proxies),
        nearest=NearestRules([r for r in rules if r.policy.action is Action.ALLOW and not r.policy.dry_run]),
    )


def _told(faults: list[Fault]) -> list[Fault]:
    """Put faults in order; of too many the first are told, and how many there are besides."""
    told, more = sorted(faults)[:MAX_TOLD], len(faults) - MAX_TOLD
    if more > 0:
        message = f"{more} further faults, in this file and behind it, are not listed"
        told.append(Fault(file=told[-1].file, message=message, hint="mend those above first"))
    return told


def _authentication(
    policies: Iterable[RequestAuthentication], workload: Workload, settings: PolicySettings
) -> Authentication | None:
    """Join the token rules of all that select the workload, in the order of decisions."""
    selecting = sorted((policy for policy in policies if _speaks_to(policy, workload, settings)), key=_order)
    rules = [rule for policy in selecting for rule in policy.rules]
    return Authentication(rules) if rules else None


def _order(policy: AuthorizationPolicy | RequestAuthentication) -> tuple[str, str, str, int]:
    return policy.namespace, policy.name, policy.origin.file, policy.origin.document


def _speaks_to(
    policy: AuthorizationPolicy | RequestAuthentication, workload: Workload, settings: PolicySettings
) -> bool:
    in_scope = policy.namespace in (settings.root_namespace, workload.namespace)
    return in_scope and selects(policy.selector, workload.labels)


def _compile_rules(
    policies: Iterable[AuthorizationPolicy], trust_domains: tuple[str, ...], trusted_proxies: int
) -> tuple[PolicyRule, ...]:
    places = [(policy, index) for policy in policies for index in range(len(policy.rules))]
    return tuple(
        PolicyRule(policy, index, order, trust_domains, trusted_proxies) for order, (policy, index) in enumerate(places)
    )


def _tables(rules: tuple[PolicyRule, ...], *, opaque: bool) -> Tables:
    named = {
        int(value)
        for rule in rules
        for clause in rule.rule.clauses()
        if clause.attribute is Attribute.PORT
        for value in clause.values
    }
    if (len(named) + 1) * len(rules) > MAX_NARROWED:
        return Tables(MappingProxyType({}), _port_tables(rules, None, opaque))
    by_port = {port: _port_tables(rules, port, opaque) for port in named}
    return Tables(MappingProxyType(by_port), _port_tables(rules, _OTHER_PORT, opaque))


def _port_tables(rules: Iterable[PolicyRule], port: int | None, opaque: bool) -> PortTables:
    sorted_out: dict[tuple[Action, bool], list[PortRule]] = {}
    for rule in rules:
        key = rule.policy.action, rule.policy.dry_run
        sorted_out.setdefault(key, []).extend(narrow(rule, port, opaque=opaque))

    def table(action: Action, dry_run: bool = False) -> RuleTable | None:
        found = sorted_out.get((action, dry_run))
        return RuleTable(found) if found else None

    return PortTables(
        deny=table(Action.DENY),
        allow=table(Action.ALLOW),
        audit=table(Action.AUDIT),
        shadow_deny=table(Action.DENY, True),
        shadow_allow=table(Action.ALLOW, True),
    )


def _lost_conditions(rules: Iterable[PolicyRule], tcp_ports: Collection[int]) -> list[Fault]:
    """Find the DENY and AUDIT rules that a TCP port would rob of a condition."""
    faults: list[Fault] = []
    for rule in rules:
        if rule.policy.action is Action.ALLOW or not rule.is_http:
            continue
        ports = [port for port in sorted(tcp_ports) if any(r.loses_http for r in narrow(rule, port, opaque=True))]
        if not ports:
            continue
        clause = next(clause for clause in rule.rule.clauses() if clause.is_http)
        which = f"port {ports[0]} carries" if len(ports) == 1 else f"ports {', '.join(map(str, ports))} carry"
        wanted = ", ".join(f'"{port}"' for port in ports)
        faults.append(
            Fault(
                file=rule.policy.origin.file,
                line=clause.line,
                column=clause.column,
                message=f"this {rule.policy.action.value} rule looks at HTTP (`{clause.name}`), but {which} TCP",
                hint=f"name the HTTP ports in `ports` of each operation, or write `notPorts: [{wanted}]`",
            )
        )
    return faults


def digest_of(files: Mapping[str, bytes]) -> str:
    """Digest names and contents, each behind its length, so that no two sets of files share a text."""
    digest = hashlib.sha256()
    for name, content in files.items():
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(b"%d:%b%d:%b" % (len(encoded), encoded, len(content), content))
    return digest.hexdigest()
