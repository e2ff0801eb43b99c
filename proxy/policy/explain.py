"""Sentences for the operator: which clause decided, what was seen and what was wanted.

Only denials are explained, and what a peer sent is quoted, escaped and cut, so that it cannot write into a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.documents import quoted, shown
from proxy.policy.clauses import CompiledClause
from proxy.policy.facts import Facts
from proxy.policy.nearest import NearestRules
from proxy.policy.rules import Alternative, PolicyRule

MAX_CLAUSES: Final = 150
"""How many clauses are searched for the nearest miss, beside one rule at least. It bounds what a denied request costs
to about 0.2 ms: denials are what an attacker can have for nothing."""

MAX_ALTERNATIVES: Final = 50
"""How many items of one `from` or `to` are searched."""

_TOLD_CLAUSES: Final = 6


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
    told = "; ".join(clause.describe(facts) for clause in matching[:_TOLD_CLAUSES])
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


class Nearest(NamedTuple):
    """The rule that came nearest, the clauses that failed in it, and how many rules were compared."""

    rule: PolicyRule
    failed: list[CompiledClause]
    compared: int


def nearest_miss(nearest_rules: NearestRules, facts: Facts) -> str:
    """Name the ALLOW rule that came nearest and the first clause that failed in it; "" without rules."""
    near = find_nearest(nearest_rules, facts)
    if near is None:
        return ""
    rule, failed, searched = near
    told = failed[0].describe(facts) if failed else without_failure(rule)
    rest = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    known = len(nearest_rules.rules)
    limit = f" (of {searched} of {known} ALLOW rules compared)" if searched < known else ""
    return f"{rule.id} ({rule.place}): {told}{rest}{limit}"


def find_nearest(nearest_rules: NearestRules, facts: Facts) -> Nearest | None:
    """Find the ALLOW rule of which most clauses hold.

    Of equals the one with fewer failures is nearer, then the first in order.
    """
    best: tuple[int, int, int] | None = None
    nearest: PolicyRule | None = None
    failed: list[CompiledClause] = []
    left, searched = MAX_CLAUSES, 0
    for rule in nearest_rules.near(facts):
        if left <= 0:
            break
        left -= rule.size
        searched += 1
        held, missed = _tally(rule, facts)
        score = (held, -len(missed), -rule.order)
        if best is None or score > best:
            best, nearest, failed = score, rule, missed
    return None if nearest is None else Nearest(nearest, failed, searched)


def without_failure(rule: PolicyRule) -> str:
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
