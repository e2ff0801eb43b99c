"""Files -> snapshot: read all, check all, compile; all of it is taken or none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from proxy.errors import ConfigError, Fault
from proxy.policy.lint import lint
from proxy.policy.model import (
    Action,
    Attribute,
    AuthorizationPolicy,
    Clause,
    PolicySettings,
    Workload,
    selects,
)
from proxy.policy.peers import resolve_modes
from proxy.policy.read import read_files, takes_file
from proxy.policy.rules import PolicyRule, PortRule, narrow
from proxy.policy.snapshot import PolicySnapshot, PortTables, Tables
from proxy.policy.table import RuleTable
from proxy.types import Generation

MAX_SET_BYTES: Final = 16 * 1024 * 1024
"""A whole set; 1,000 rules are about 0.3 MiB. Above it a reload would stop traffic for seconds."""

MAX_NARROWED: Final = 200_000
"""Rules times ports that get a table each (about 100 MiB). Above it ports are compared while requests wait."""

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
    a condition there is a fault. No file at all is a valid set: `policy.default` decides. Raises ConfigError with
    every fault of every file, in order.

    >>> from proxy.policy.examples import workload, deny
    >>> load({"a.yaml": b"kind: AuthorizationPolicy"}, workload=workload, settings=deny, generation=Generation(1))
    Traceback (most recent call last):
    proxy.errors.ConfigError: a.yaml:1:1: the document lacks `apiVersion`
    """
    taken = {name: files[name] for name in sorted(files) if takes_file(name)}
    size = sum(map(len, taken.values()))
    if size > MAX_SET_BYTES:
        message = f"the policy files have {size} bytes together, more than {MAX_SET_BYTES}"
        raise ConfigError([Fault(file=max(taken, key=lambda name: len(taken[name])), message=message)])
    policies, faults, warnings = read_files(taken, workload, settings)
    selecting = sorted(
        (policy for policy in policies.authorization if _speaks_to(policy, workload, settings)),
        key=lambda policy: (policy.namespace, policy.name, policy.origin.file, policy.origin.document),
    )
    trust_domains = (workload.trust_domain, *workload.trust_domain_aliases)
    rules = _compile_rules(selecting, trust_domains)
    faults += _lost_conditions(rules, tcp_ports)
    if faults:
        raise ConfigError(sorted(faults))
    modes, peer_warnings = resolve_modes(policies.peer_authentication, workload, settings)
    warnings += peer_warnings
    warnings += lint(policies.authorization, selecting, modes, workload, settings)
    enforced = [policy for policy in selecting if not policy.dry_run]
    return PolicySnapshot(
        generation=generation,
        source_digest=_digest(taken),
        warnings=tuple(sorted(set(warnings))),
        default=settings.default,
        has_allow=any(policy.action is Action.ALLOW for policy in enforced),
        has_shadow_allow=any(policy.dry_run and policy.action is Action.ALLOW for policy in selecting),
        looks_at_headers=_any_clause(rules, lambda clause: clause.attribute is Attribute.HEADER),
        looks_at_source_ip=_any_clause(rules, lambda clause: clause.attribute is Attribute.SOURCE_IP),
        modes=modes,
        http=_tables(rules, opaque=False),
        opaque=_tables(rules, opaque=True),
        allow_rules=tuple(r for r in rules if r.policy.action is Action.ALLOW and not r.policy.dry_run),
    )


def _speaks_to(policy: AuthorizationPolicy, workload: Workload, settings: PolicySettings) -> bool:
    in_scope = policy.namespace in (settings.root_namespace, workload.namespace)
    return in_scope and selects(policy.selector, workload.labels)


def _compile_rules(policies: Iterable[AuthorizationPolicy], trust_domains: tuple[str, ...]) -> tuple[PolicyRule, ...]:
    places = [(policy, index) for policy in policies for index in range(len(policy.rules))]
    return tuple(PolicyRule(policy, index, order, trust_domains) for order, (policy, index) in enumerate(places))


def _any_clause(rules: Iterable[PolicyRule], wanted: Callable[[Clause], bool]) -> bool:
    return any(wanted(clause) for rule in rules for clause in rule.rule.clauses())


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


def _digest(files: Mapping[str, bytes]) -> str:
    """Digest names and contents, each behind its length, so that no two sets of files share a text."""
    digest = hashlib.sha256()
    for name, content in files.items():
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(b"%d:%b%d:%b" % (len(encoded), encoded, len(content), content))
    return digest.hexdigest()
