"""RM0304 and RM0305: rules that change nothing because another rule says the same or more.

A rule covers another when each of its clauses follows from clauses of the other. Sources and operations speak of
different attributes, so both are compared by themselves; conditions may speak of any.

Comparing each rule with each is quadratic. Rules that demand an exact value are looked up by it: among thousands of
rules with paths of their own each meets a handful. What still has to be compared is bounded by a budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from proxy.errors import Fault
from proxy.policy.lint.facts import Fact, fact, follows, implied
from proxy.policy.lint.rules import can_never_match
from proxy.policy.lint.scene import Remark, Scene, at_rule
from proxy.policy.model import Action, Attribute, AuthorizationPolicy, Clause, Rule

_INDEXED: Final = (
    Attribute.PATH,
    Attribute.PRINCIPAL,
    Attribute.SERVICE_ACCOUNT,
    Attribute.NAMESPACE,
    Attribute.HOST,
    Attribute.HEADER,
    Attribute.PORT,
    Attribute.METHOD,
)
"""By what rules are looked up, the most telling first."""

MAX_ITEMS: Final = 64
"""Items of `from`, `to` and `when` of a rule that takes part: each item is compared with each of the other rule."""

PREPARING: Final = 4
"""What it costs to prepare a value, in comparisons."""

Key = tuple[Attribute, str]


class Prepared:
    """A rule with what it demands and what follows from it."""

    __slots__ = ("conditions", "demands", "facts", "order", "policy", "rule", "size")

    def __init__(self, policy: AuthorizationPolicy, rule: Rule, order: int, trust_domains: tuple[str, ...]) -> None:
        self.policy = policy
        self.rule = rule
        self.order = order
        self.conditions = [fact(clause, trust_domains) for clause in rule.conditions]
        also = [*self.conditions, *_all_implied(rule.conditions)]
        self.demands: list[list[list[Fact]]] = []
        self.facts: list[list[list[Fact]]] = []
        for side in (rule.sources or ((),), rule.operations or ((),)):
            demands = [[fact(clause, trust_domains) for clause in each] for each in side]
            self.demands.append(demands)
            self.facts.append([[*own, *_all_implied(each), *also] for own, each in zip(demands, side, strict=True)])
        self.size = _size(rule)

    def covers(self, other: Prepared) -> bool:
        """Say whether this rule matches wherever the other does."""
        if not _scope_covers(self.policy, other.policy):
            return False
        for own_side, side in zip(self.demands, other.facts, strict=True):
            for facts in side:
                if not any(all(follows(wanted, facts) for wanted in own) for own in own_side):
                    return False
        return all(
            any(all(follows(wanted, facts) for facts in side) for side in other.facts) for wanted in self.conditions
        )

    def pairs(self, other: Prepared) -> int:
        """Count the items that are compared with each other."""
        return sum(len(own) * len(side) for own, side in zip(self.demands, other.demands, strict=True))

    def keys(self) -> set[Key]:
        """Give values of one attribute, without one of which nothing is covered; empty when there is none such."""
        for attribute in _INDEXED:
            for alternatives in (*self.demands, [self.conditions]):
                named = [_exact(alternative, attribute) for alternative in alternatives]
                if all(named):
                    return {(attribute, value) for values in named for value in values}
        return set()

    def given(self) -> set[Key]:
        """Give the keys under which what covers this rule may stand: a rule that covers it covers its first values."""
        first = [each for side in self.facts for each in side[0] if not each.negated]
        return {
            (each.attribute, each.values[0].lower() if each.attribute is Attribute.HOST else each.values[0])
            for each in first
        }


def _all_implied(clauses: Iterable[Clause]) -> list[Fact]:
    return [each for clause in clauses for each in implied(clause)]


def _exact(facts: Iterable[Fact], attribute: Attribute) -> tuple[str, ...]:
    for each in facts:
        if each.attribute is attribute and not each.negated and _is_exact(each):
            return each.values
    return ()


def _is_exact(each: Fact) -> bool:
    """Say whether only an equal text lies in a list; hosts are compared in any case, so they count when lower."""
    if each.attribute is Attribute.HOST and any(value != value.lower() for value in each.values):
        return False
    return not any("*" in value for value in each.values)


def _scope_covers(policy: AuthorizationPolicy, other: AuthorizationPolicy) -> bool:
    return policy.selector.items() <= other.selector.items()


def shadow_findings(policies: Sequence[AuthorizationPolicy], scene: Scene) -> Iterator[Fault]:
    """Find the rules that another rule of the set makes superfluous."""
    budget = scene.comparisons
    rules: list[Prepared] = []
    for policy, rule in _comparable(policies):
        budget -= PREPARING * _size(rule)
        if budget < 0:
            yield _unfinished(policy, rule)
            return
        if not can_never_match(rule, scene):
            rules.append(Prepared(policy, rule, len(rules), scene.trust_domains))
    index: dict[Key, list[Prepared]] = {}
    anywhere: list[Prepared] = []
    for prepared in rules:
        keys = prepared.keys()
        for key in keys:
            index.setdefault(key, []).append(prepared)
        if not keys:
            anywhere.append(prepared)
    for prepared in rules:
        candidates = dict.fromkeys(anywhere)
        for key in prepared.given():
            candidates.update(dict.fromkeys(index.get(key, ())))
        for other in candidates:
            if other is prepared or not _may_matter(other.policy, prepared.policy, scene.settings.root_namespace):
                continue
            budget -= other.size + prepared.size + other.pairs(prepared)
            if budget < 0:
                yield _unfinished(prepared.policy, prepared.rule)
                return
            if not other.covers(prepared):
                continue
            same = other.policy.action is prepared.policy.action
            if same and other.order > prepared.order and prepared.covers(other):
                continue  # the two are equal: the later one is named
            yield _shadowed(prepared, other, same)
            break


def _comparable(policies: Iterable[AuthorizationPolicy]) -> Iterator[tuple[AuthorizationPolicy, Rule]]:
    for policy in policies:
        for rule in policy.rules if policy.action is not Action.AUDIT else ():
            if max(len(rule.sources), len(rule.operations), len(rule.conditions)) <= MAX_ITEMS:
                yield policy, rule


def _size(rule: Rule) -> int:
    return 1 + sum(len(clause.values) for clause in rule.clauses())


def _unfinished(policy: AuthorizationPolicy, rule: Rule) -> Fault:
    message = "the set has too many rules to compare each with each: some shadowed rules are not named"
    return at_rule(policy, rule, Remark("RM0002", message))


def _may_matter(wide: AuthorizationPolicy, policy: AuthorizationPolicy, root_namespace: str) -> bool:
    """Say whether a rule of one policy can make a rule of the other superfluous."""
    if wide.namespace not in (policy.namespace, root_namespace):
        return False
    if wide.action is policy.action:
        return wide.dry_run is policy.dry_run
    return wide.action is Action.DENY and not wide.dry_run and not policy.dry_run


def _shadowed(prepared: Prepared, other: Prepared, same: bool) -> Fault:
    index = other.policy.rules.index(other.rule)
    place = f"{other.policy.rule_id(index)} ({other.policy.origin.file}:{other.rule.line})"
    if same:
        message = f"whatever this rule matches, {place} matches too: it changes nothing"
        return at_rule(prepared.policy, prepared.rule, Remark("RM0304", message, "remove it, or narrow the other"))
    message = f"whatever this rule allows, {place} denies"
    hint = "a DENY counts before every ALLOW: narrow the DENY, or remove this rule"
    return at_rule(prepared.policy, prepared.rule, Remark("RM0305", message, hint))
