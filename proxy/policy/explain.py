"""Sentences for the operator: which clause decided, what was seen and what was wanted.

Only denials are explained, and what a peer sent is quoted, escaped and cut, so that it cannot write into a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.documents import quoted, shown
from proxy.policy.facts import CompiledClause, Facts
from proxy.policy.rules import Alternative, PolicyRule

MAX_COMPARED: Final = 500
"""How many clauses of ALLOW rules are searched for the nearest miss, beside one rule at least.

It bounds what a denied request costs to about 0.5 ms: denials are what an attacker can have for nothing.
"""

MAX_ALTERNATIVES: Final = 50
"""How many items of one `from` or `to` are searched."""

_MAX_CLAUSES: Final = 6


def subject(facts: Facts) -> str:
    """Name what was judged: the request or connection, its port and its peer."""
    peer = shown(facts.principal, 200) if facts.peer is not None else "a peer without identity"
    what = f"{shown(facts.method, 20)} {quoted(facts.path)}" if facts.is_http else "the connection"
    return f"{what} to port {facts.port} from {peer}"


def denied_by(rule: PolicyRule, facts: Facts) -> str:
    """Explain a DENY rule that matched, by the clauses that made it match."""
    matching = [*_held(rule.sources, facts), *_held(rule.operations, facts), *rule.conditions]
    if not matching:
        return f"{rule.id} ({rule.place}) denies {subject(facts)}: the rule has no condition and denies everything"
    told = "; ".join(clause.describe(facts) for clause in matching[:_MAX_CLAUSES])
    return f"{rule.id} ({rule.place}) denies {subject(facts)}: {told}"


def denied_opaque(rule: PolicyRule, facts: Facts) -> str:
    """Explain a DENY rule that could not be judged because the connection is not HTTP."""
    names = sorted({clause.name for clause in rule.rule.clauses() if clause.is_http})
    fields = ", ".join(f"`{name}`" for name in names)
    return (
        f"{rule.id} ({rule.place}) denies some HTTP by {fields}, and {subject(facts)} is not HTTP, so nobody can tell "
        f"whether it would match; let the rule name the ports that speak HTTP"
    )


def _held(alternatives: Sequence[Alternative], facts: Facts) -> Alternative:
    for alternative in alternatives:
        if all(clause.holds(facts) for clause in alternative):
            return alternative
    return ()


def nearest_miss(rules: Sequence[PolicyRule], facts: Facts) -> str:
    """Name the ALLOW rule of which most clauses hold, and the first clause that does not; "" without rules.

    Of equals the one with fewer failures is nearer, then the first in order.
    """
    best: tuple[int, int] | None = None
    nearest: PolicyRule | None = None
    failed: list[CompiledClause] = []
    left, searched = MAX_COMPARED, 0
    for rule in rules:
        if left <= 0:
            break
        left -= rule.size
        searched += 1
        held, missed = _tally(rule, facts)
        score = (held, -len(missed))
        if best is None or score > best:
            best, nearest, failed = score, rule, missed
    if nearest is None:
        return ""
    told = failed[0].describe(facts) if failed else _without_failure(nearest)
    rest = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    limit = f" (of the first {searched} ALLOW rules)" if searched < len(rules) else ""
    return f"{nearest.id} ({nearest.place}): {told}{rest}{limit}"


def _without_failure(rule: PolicyRule) -> str:
    """Say why a rule whose every clause holds did not allow: it was left out for an opaque connection."""
    names = sorted({clause.name for clause in rule.rule.clauses() if clause.is_http})
    fields = ", ".join(f"`{name}`" for name in names)
    return f"the rule looks at HTTP ({fields}), so on a connection that is not HTTP the whole of it allows nothing"


def _tally(rule: PolicyRule, facts: Facts) -> tuple[int, list[CompiledClause]]:
    """Count the clauses that hold and collect those that do not, for the best alternatives of the rule."""
    held = 0
    missed: list[CompiledClause] = []
    for alternatives in (rule.sources, rule.operations, (rule.conditions,)):
        best_held, best_missed = 0, None
        for alternative in alternatives[:MAX_ALTERNATIVES]:
            failing = [clause for clause in alternative if not clause.holds(facts)]
            holding = len(alternative) - len(failing)
            if best_missed is None or (len(failing) == 0, holding) > (len(best_missed) == 0, best_held):
                best_held, best_missed = holding, failing
        held += best_held
        missed += best_missed or []
    return held, missed


def no_rule(facts: Facts) -> str:
    """Explain that ALLOW policies select the workload and none of their rules matched."""
    return f"no ALLOW rule allows {subject(facts)}"


def by_default(facts: Facts, default: str) -> str:
    """Explain a denial by `policy.default`."""
    hint = "write an AuthorizationPolicy that allows it"
    return f"no ALLOW policy selects this workload and policy.default is {default}: {subject(facts)}; {hint}"


def without_mtls(facts: Facts, source: str) -> str:
    """Explain that a port takes mutual TLS only."""
    return f"port {facts.port} takes mutual TLS only ({source}) and the peer showed no verified certificate"
