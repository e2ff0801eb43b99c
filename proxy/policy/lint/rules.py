"""RM03 and RM04: what a rule says as a whole, and on which ports and protocols it can say it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from proxy.documents import quoted
from proxy.errors import Fault
from proxy.policy.lint.boolean import alternatives_form, boolean_form
from proxy.policy.lint.facts import Fact, by_topic, contradiction_of, facts_of
from proxy.policy.lint.scene import MAX_CONDITIONS, Remark, Scene, admits_port, at_rule, combinations
from proxy.policy.model import Action, Attribute, AuthorizationPolicy, Clause, Rule
from proxy.types import Protocol


def rule_findings(policy: AuthorizationPolicy, rule: Rule, scene: Scene) -> Iterator[Fault]:
    """Judge one rule by its own text."""
    yield from _impossible(policy, rule, scene)
    yield from _stray_dashes(policy, rule)
    if not any(rule.clauses()) and policy.action is Action.ALLOW:
        remark = Remark("RM0308", "the rule has no condition: everything is allowed, to peers without identity too")
        yield at_rule(policy, rule, remark)


def can_never_match(rule: Rule, scene: Scene) -> bool:
    """Say whether no request can match a rule, as far as its text tells."""
    if any(_never_holds(clause) for clause in rule.conditions):
        return True
    if len(rule.conditions) > MAX_CONDITIONS:
        return False
    conditions = by_topic(facts_of(rule.conditions, scene.trust_domains))

    def is_impossible(clauses: tuple[Clause, ...]) -> bool:
        if any(_never_holds(clause) for clause in clauses):
            return True
        return contradiction_of(clauses, conditions, scene.trust_domains) is not None

    if contradiction_of(rule.conditions, {}, scene.trust_domains) is not None:
        return True
    return any(side and all(map(is_impossible, side)) for side in (rule.sources, rule.operations))


def _never_holds(clause: Clause) -> bool:
    """Say whether a clause excludes everything. Not so for identity: `notPrincipals: ["*"]` is a peer without any."""
    return clause.negated and "*" in clause.values and clause.attribute in _ALWAYS_THERE


_ALWAYS_THERE: Final = (Attribute.PATH, Attribute.METHOD)  # a host may be empty


def _impossible(policy: AuthorizationPolicy, rule: Rule, scene: Scene) -> Iterator[Fault]:
    never = [clause for clause in rule.clauses() if _never_holds(clause)]
    for clause in never:
        remark = Remark("RM0302", "nothing is left when everything is excluded: it never holds", "leave it out")
        yield at_rule(policy, clause, remark)
    if never or len(rule.conditions) > MAX_CONDITIONS:
        return
    among_conditions = contradiction_of(rule.conditions, {}, scene.trust_domains)
    if among_conditions is not None:
        yield _contradicting(policy, among_conditions, "the rule never matches")
        return
    conditions = by_topic(facts_of(rule.conditions, scene.trust_domains))
    for word, alternatives in (("from", rule.sources), ("to", rule.operations)):
        for alternative in alternatives:
            found = contradiction_of(alternative, conditions, scene.trust_domains)
            if found is not None:
                alone = len(alternatives) == 1
                outcome = "the rule never matches" if alone else f"this item of `{word}` never matches"
                yield _contradicting(policy, found, outcome)


def _contradicting(policy: AuthorizationPolicy, facts: tuple[Fact, Fact], outcome: str) -> Fault:
    one, other = sorted((facts[0].clause, facts[1].clause), key=lambda clause: (clause.line, clause.column))
    shown = quoted(one.values[0]) + (" ..." if len(one.values) > 1 else "")
    excluded = quoted(other.values[0]) + (" ..." if len(other.values) > 1 else "")
    if one.negated or other.negated:
        message = f"`{one.name}` ({shown}) and `{other.name}` ({excluded}) leave nothing: {outcome}"
    else:
        message = f"`{one.name}` ({shown}) and `{other.name}` ({excluded}) have nothing in common: {outcome}"
    hint = "two fields of one item must both hold; for either, write two items"
    return at_rule(policy, other, Remark("RM0301", message, hint))


def _stray_dashes(policy: AuthorizationPolicy, rule: Rule) -> Iterator[Fault]:
    """Find items of one field each that follow one another with different fields: the mark of a dash too many."""
    for word, alternatives in (("from", rule.sources), ("to", rule.operations)):
        for one, other in pairwise(alternatives):
            if len(one) != 1 or len(other) != 1 or one[0].attribute is other[0].attribute:
                continue
            meant = alternatives_form((one, other), "AND")
            message = f"the items of `{word}` are alternatives. The rule reads: {boolean_form(rule, policy.action, 4)}"
            hint = f"for {meant} drop the second `- `; where OR is meant, write two rules"
            yield at_rule(policy, other[0], Remark("RM0306", message, hint))
            break


# --- ports and protocols ---


def port_findings(policy: AuthorizationPolicy, rule: Rule, scene: Scene) -> Iterator[Fault]:
    """Judge a rule by the ports that it can speak of: those of the workload at hand, if they are known."""
    speaks_http = any(clause.is_http for clause in rule.clauses())
    parts = list(combinations(rule))
    if scene.ports is not None:
        served = {port for port in scene.ports if any(admits_port(part, port) for part in parts)}
        if not served and scene.ports:
            ports = ", ".join(map(str, sorted(scene.ports)))
            message = "the rule speaks of ports that this workload does not serve, and never matches"
            yield at_rule(policy, _port_clause(rule) or rule, Remark("RM0303", message, f"its ports: {ports}"))
            return
        tcp_only = bool(served) and all(scene.ports[port] is Protocol.TCP for port in served)
    else:
        named = _only_ports(parts)
        tcp_only = bool(named) and named <= scene.tcp_ports
    if not speaks_http:
        return
    clause = next(clause for clause in rule.clauses() if clause.is_http)
    if policy.action is Action.ALLOW:
        if tcp_only:
            message = "it looks at HTTP, and every port of the rule carries TCP: the rule never matches"
            yield at_rule(policy, clause, Remark("RM0403", message, "leave the HTTP fields out, or name an HTTP port"))
        return
    losing = [part for part in parts if any(each.is_http for each in (*part, *_http_of(rule.sources)))]
    verb = "denies" if policy.action is Action.DENY else "audits"
    if scene.ports is not None:
        auto = sorted(port for port, protocol in scene.ports.items() if protocol is Protocol.AUTO)
        open_to = [port for port in auto if any(admits_port(part, port) for part in losing)]
        if open_to:
            ports = f"port {open_to[0]}" if len(open_to) == 1 else f"ports {', '.join(map(str, open_to))}"
            message = f"it looks at HTTP; on {ports} (auto) it also {verb} every connection that is not HTTP"
            hint = "give the port `protocol: http`, or name the HTTP ports in `ports`"
            yield at_rule(policy, clause, Remark("RM0401", message, hint))
    elif any(not _names_port(part) for part in losing):
        message = f"it looks at HTTP and names no ports: it also {verb} every connection that is not HTTP"
        yield at_rule(policy, clause, Remark("RM0402", message, "name the HTTP ports in `ports` of each operation"))


def _http_of(alternatives: tuple[tuple[Clause, ...], ...]) -> list[Clause]:
    return [clause for alternative in alternatives for clause in alternative if clause.is_http]


def _names_port(clauses: tuple[Clause, ...]) -> bool:
    return any(clause.attribute is Attribute.PORT for clause in clauses)


def _port_clause(rule: Rule) -> Clause | None:
    return next((clause for clause in rule.clauses() if clause.attribute is Attribute.PORT), None)


def _only_ports(parts: list[tuple[Clause, ...]]) -> set[int]:
    """Collect the ports that a rule is limited to; empty when some part of it is not limited."""
    ports: set[int] = set()
    for part in parts:
        named = [clause for clause in part if clause.attribute is Attribute.PORT and not clause.negated]
        if not named:
            return set()
        ports |= {int(value) for clause in named for value in clause.values}
    return ports
