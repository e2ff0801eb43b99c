"""Rules, compiled whole to explain a denial and narrowed to one port to decide.

Ports are known when a snapshot is compiled: for a given port the port clauses of a rule are answered once, and what
is left is a short list of tests that must all hold.

On an opaque connection (no HTTP) the narrowing differs by action. An ALLOW rule that looks at HTTP anywhere is left
out whole. A DENY or AUDIT rule keeps what can be judged and is marked `loses_http`: it might match, nobody can know,
and so a DENY refuses the connection by name. Istio would drop the condition, another mesh would drop the rule; both
decide silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.policy.clauses import CompiledClause, Test
from proxy.policy.facts import Facts
from proxy.policy.model import Action, Attribute, AuthorizationPolicy, Clause

Alternative = tuple[CompiledClause, ...]


class PolicyRule:
    """One rule of a policy with every clause compiled, for all ports."""

    __slots__ = ("conditions", "id", "is_http", "operations", "order", "policy", "rule", "size", "sources")

    def __init__(
        self,
        policy: AuthorizationPolicy,
        index: int,
        order: int,
        trust_domains: tuple[str, ...],
        trusted_proxies: int = 0,
    ) -> None:
        def compiled(clauses: Iterable[Clause]) -> Alternative:
            return tuple(CompiledClause(clause, trust_domains, trusted_proxies) for clause in clauses)

        rule = policy.rules[index]
        self.policy = policy
        self.rule = rule
        self.order = order
        self.id = policy.rule_id(index)
        self.sources = tuple(compiled(source) for source in rule.sources)
        self.operations = tuple(compiled(operation) for operation in rule.operations)
        self.conditions = compiled(rule.conditions)
        clauses = tuple(rule.clauses())
        self.is_http = any(clause.is_http for clause in clauses)
        self.size = 1 + len(clauses)

    @property
    def place(self) -> str:
        """Say where the rule was written."""
        return f"{self.policy.origin.file}:{self.rule.line}"


class PortRule:
    """What is left of a rule on one port: it matches when every test holds."""

    __slots__ = ("conditions", "loses_http", "operations", "order", "rule", "sources", "tests")

    def __init__(
        self,
        rule: PolicyRule,
        conditions: Alternative,
        sources: tuple[Alternative, ...],
        operations: tuple[Alternative, ...],
        loses_http: bool = False,
    ) -> None:
        self.rule = rule
        self.order = 2 * rule.order + loses_http  # of one rule, what can be judged whole counts first
        self.loses_http = loses_http
        self.sources = sources
        self.operations = operations
        self.conditions = conditions
        tests: list[Test] = [clause.test for clause in conditions]
        for alternatives in (sources, operations):
            if len(alternatives) == 1:
                tests += [clause.test for clause in alternatives[0]]
            elif alternatives:
                tests.append(_any_of(alternatives))
        self.tests = tuple(tests)

    def matches(self, facts: Facts) -> bool:
        """Say whether the rule matches on its port."""
        for test in self.tests:  # noqa: SIM110 (all() over a generator takes twice the time, and this is the hot path)
            if not test(facts):
                return False
        return True


def _any_of(alternatives: tuple[Alternative, ...]) -> Test:
    groups = tuple(tuple(clause.test for clause in alternative) for alternative in alternatives)

    def test(facts: Facts) -> bool:
        for group in groups:
            for each in group:
                if not each(facts):
                    break
            else:
                return True
        return False

    return test


def narrow(rule: PolicyRule, port: int | None, *, opaque: bool) -> list[PortRule]:
    """Narrow a rule to a port, for HTTP or for an opaque connection; None keeps the port clauses as tests.

    The result is empty when the rule cannot match there. On an opaque connection a DENY or AUDIT rule may come out
    as two: the alternatives that can be judged whole, and all of them without their HTTP conditions.
    """
    conditions = _narrowed(rule.conditions, port)
    operations = [left for each in rule.operations if (left := _narrowed(each, port)) is not None]
    if conditions is None or (rule.operations and not operations):
        return []
    if not opaque or not rule.is_http:
        return [PortRule(rule, conditions, rule.sources, _or_any(operations))]
    if rule.policy.action is Action.ALLOW:
        return []
    narrowed: list[PortRule] = []
    plain = _without_http(conditions)
    whole_sources = [each for each in rule.sources if not _looks_at_http(each)]
    whole_operations = [each for each in operations if not _looks_at_http(each)]
    is_judged = not _looks_at_http(conditions)
    if is_judged and (whole_sources or not rule.sources) and (whole_operations or not operations):
        narrowed.append(PortRule(rule, plain, _or_any(whole_sources), _or_any(whole_operations)))
    if not is_judged or len(whole_sources) < len(rule.sources) or len(whole_operations) < len(operations):
        sources = _or_any([_without_http(each) for each in rule.sources])
        losing = _or_any([_without_http(each) for each in operations])
        narrowed.append(PortRule(rule, plain, sources, losing, loses_http=True))
    return narrowed


def _narrowed(clauses: Alternative, port: int | None) -> Alternative | None:
    """Answer the port clauses; None when one of them fails."""
    if port is None:
        return clauses
    text = str(port)
    for clause in clauses:
        if clause.clause.attribute is Attribute.PORT and (text in clause.clause.values) is clause.clause.negated:
            return None
    return tuple(clause for clause in clauses if clause.clause.attribute is not Attribute.PORT)


def _or_any(alternatives: Sequence[Alternative]) -> tuple[Alternative, ...]:
    """Drop all alternatives when one of them is without clauses: it matches everything."""
    return tuple(alternatives) if all(alternatives) else ()


def _looks_at_http(clauses: Alternative) -> bool:
    return any(clause.is_http for clause in clauses)


def _without_http(clauses: Alternative) -> Alternative:
    return tuple(clause for clause in clauses if not clause.is_http)
