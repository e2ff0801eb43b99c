"""The rules of one action on one port, filed so that the first match is found without trying them all.

A rule is filed under one text that it cannot match without (a principal, a path, the first segment of a path, a host,
a namespace ...), the rarest one that it has. A decision tries only the rules filed under what it sees, and those that
could not be filed. So a thousand rules cost about what ten cost, as long as they differ in something exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxy.policy.facts import CompiledClause, Facts, path_head
from proxy.policy.model import Attribute
from proxy.policy.rules import Alternative, PortRule

SCAN_AT_MOST: Final = 8
"""Up to this many rules are simply tried one after the other: the look-ups would cost as much."""

_Reader = Callable[[Facts], str]

_KEYS: Final[tuple[tuple[str, Attribute, _Reader], ...]] = (
    ("principal", Attribute.PRINCIPAL, lambda facts: facts.principal),
    ("path", Attribute.PATH, lambda facts: facts.path),
    ("head", Attribute.PATH, lambda facts: path_head(facts.path)),
    ("host", Attribute.HOST, lambda facts: facts.host),
    ("account", Attribute.SERVICE_ACCOUNT, lambda facts: facts.service_account),
    ("namespace", Attribute.NAMESPACE, lambda facts: facts.namespace),
)


class RuleTable:
    """Rules in the order in which the first match counts."""

    __slots__ = ("_filed", "_unfiled", "rules")

    def __init__(self, rules: Iterable[PortRule]) -> None:
        self.rules = tuple(rules)
        self._unfiled: tuple[PortRule, ...] = self.rules
        self._filed: tuple[tuple[_Reader, dict[str, tuple[PortRule, ...]]], ...] = ()
        if len(self.rules) > SCAN_AT_MOST:
            self._file()

    def first(self, facts: Facts) -> PortRule | None:
        """Find the first rule that matches."""
        best: PortRule | None = None
        for candidates in self._candidates(facts):
            for rule in candidates:
                if best is not None and rule.order >= best.order:
                    break
                if rule.matches(facts):
                    best = rule
                    break
        return best

    def all(self, facts: Facts) -> list[PortRule]:
        """Find every rule that matches, in order."""
        found = [rule for candidates in self._candidates(facts) for rule in candidates if rule.matches(facts)]
        return sorted(found, key=lambda rule: rule.order)

    def _candidates(self, facts: Facts) -> Sequence[tuple[PortRule, ...]]:
        if not self._filed:
            return (self._unfiled,)
        filed = [rules for read, by_key in self._filed if (rules := by_key.get(read(facts))) is not None]
        filed.append(self._unfiled)
        return filed

    def _file(self) -> None:
        choices = [[(name, keys) for name, _, _ in _KEYS if (keys := _needed(rule, name))] for rule in self.rules]
        counts = Counter((name, key) for options in choices for name, keys in options for key in keys)
        filed: dict[str, dict[str, list[PortRule]]] = {}
        unfiled: list[PortRule] = []
        for rule, options in zip(self.rules, choices, strict=True):
            if not options:
                unfiled.append(rule)
                continue
            name, keys = min(options, key=lambda option: max(counts[option[0], key] for key in option[1]))
            for key in keys:
                filed.setdefault(name, {}).setdefault(key, []).append(rule)
        self._unfiled = tuple(unfiled)
        self._filed = tuple(
            (read, {key: tuple(rules) for key, rules in filed[name].items()})
            for name, _, read in _KEYS
            if name in filed
        )


def _needed(rule: PortRule, name: str) -> frozenset[str]:
    """Collect the texts of one kind without one of which the rule cannot match; empty when it can."""
    for clause in rule.conditions:
        if keys := _keys(clause, name):
            return keys
    for alternatives in (rule.sources, rule.operations):
        each = [_alternative_keys(alternative, name) for alternative in alternatives]
        if each and all(each):
            return frozenset().union(*each)
    return frozenset()


def _alternative_keys(alternative: Alternative, name: str) -> frozenset[str]:
    return next((keys for clause in alternative if (keys := _keys(clause, name))), frozenset())


def _keys(clause: CompiledClause, name: str) -> frozenset[str]:
    if name == "head":
        return clause.heads
    attribute = next(attribute for known, attribute, _ in _KEYS if known == name)
    return clause.exact if clause.clause.attribute is attribute else frozenset()
