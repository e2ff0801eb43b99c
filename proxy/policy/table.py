"""The rules of one action on one port, filed so that the first match is found without trying them all.

A rule is filed under one text that it cannot match without (a principal, a path or the whole segments that a path
begins with, a host, a header line, a claim ...), the rarest one that it has. A decision tries only the rules filed
under what it sees, and those that could not be filed. Where many rules share one text, they are filed once more by
something else. So a thousand rules cost about what ten cost, as long as they differ in something that can be looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from proxy.policy.clauses import Filing
from proxy.policy.facts import Facts
from proxy.policy.rules import Alternative, PolicyRule, PortRule

SCAN_AT_MOST: Final = 8
"""Up to this many rules are simply tried one after the other: the look-ups would cost as much."""

MAX_LEVELS: Final = 2
"""How often rules are filed: by path, say, and those of one path by principal."""

MAX_KEYS_BELOW: Final = 16
"""A rule with more keys than this is not filed again below the first level. With it a rule of a thousand principals and
a thousand paths has a thousand entries and not a million."""

_Read = Callable[[Facts], Iterable[Hashable]]


class _Drawer(NamedTuple):
    """Rules to try in order, and rules behind keys; `first` is the order of the first rule of all."""

    first: int
    rules: tuple[PortRule, ...]
    filed: tuple[tuple[_Read, Mapping[Hashable, _Drawer]], ...]


class RuleTable:
    """Rules in the order in which the first match counts."""

    __slots__ = ("_root", "rules")

    def __init__(self, rules: Iterable[PortRule]) -> None:
        self.rules = tuple(rules)
        self._root = _drawer(self.rules, frozenset(), MAX_LEVELS)

    def first(self, facts: Facts) -> PortRule | None:
        """Find the first rule that matches."""
        return _first(self._root, facts, None)

    def all(self, facts: Facts) -> list[PortRule]:
        """Find every rule that matches, in order."""
        found = {rule.order: rule for rule in _candidates(self._root, facts) if rule.matches(facts)}
        return [rule for _, rule in sorted(found.items())]

    def tried(self, facts: Facts) -> int:
        """Count the rules that a decision has to try when none matches; it is what the filing is for."""
        return len(_candidates(self._root, facts))


def _first(drawer: _Drawer, facts: Facts, best: PortRule | None) -> PortRule | None:
    for rule in drawer.rules:
        if best is not None and rule.order >= best.order:
            break
        if rule.matches(facts):
            best = rule
            break
    for read, by_key in drawer.filed:
        for key in read(facts):
            below = by_key.get(key)
            if below is not None and (best is None or below.first < best.order):
                best = _first(below, facts, best)
    return best


def _candidates(drawer: _Drawer, facts: Facts) -> list[PortRule]:
    found = list(drawer.rules)
    for read, by_key in drawer.filed:
        for key in read(facts):
            below = by_key.get(key)
            if below is not None:
                found += _candidates(below, facts)
    return found


def _drawer(rules: Sequence[PortRule], used: frozenset[Hashable], levels: int) -> _Drawer:
    """File rules, which are in order, by any dimension but those that led here."""
    first = rules[0].order if rules else 0
    if len(rules) <= SCAN_AT_MOST or not levels:
        return _Drawer(first, tuple(rules), ())
    choices = [filings(rule, used) for rule in rules]
    if used:
        choices = [[each for each in options if len(each.keys) <= MAX_KEYS_BELOW] for options in choices]
    counts = Counter((each.dimension, key) for options in choices for each in options for key in each.keys)
    filed: dict[Hashable, dict[Hashable, list[PortRule]]] = {}
    reads: dict[Hashable, _Read] = {}
    unfiled: list[PortRule] = []
    for rule, options in zip(rules, choices, strict=True):
        if not options:
            unfiled.append(rule)
            continue
        rarest = min(options, key=lambda each: max(counts[each.dimension, key] for key in each.keys))
        reads[rarest.dimension] = rarest.read
        for key in rarest.keys:
            filed.setdefault(rarest.dimension, {}).setdefault(key, []).append(rule)
    return _Drawer(
        first,
        tuple(unfiled),
        tuple(
            (reads[dimension], {key: _drawer(found, used | {dimension}, levels - 1) for key, found in by_key.items()})
            for dimension, by_key in filed.items()
        ),
    )


def filings(rule: PortRule | PolicyRule, used: frozenset[Hashable] = frozenset()) -> list[Filing]:
    """List where a rule can be filed: in each dimension the keys without one of which it cannot match.

    A condition must hold, so its keys will do; of alternatives every one must have keys in the same dimension.
    """
    found: dict[Hashable, Filing] = {}
    for filing in _by_dimension(rule.conditions).values():
        found.setdefault(filing.dimension, filing)
    for alternatives in (rule.sources, rule.operations):
        each = [_by_dimension(alternative) for alternative in alternatives]
        for dimension in each[0] if each else ():
            if dimension not in found and all(dimension in filed for filed in each):
                keys = frozenset().union(*(filed[dimension].keys for filed in each))
                found[dimension] = Filing(dimension, keys, each[0][dimension].read)
    return [filing for dimension, filing in found.items() if dimension not in used]


def _by_dimension(alternative: Alternative) -> dict[Hashable, Filing]:
    """Take the first clause of each dimension that has keys."""
    found: dict[Hashable, Filing] = {}
    for clause in alternative:
        if clause.filing is not None:
            found.setdefault(clause.filing.dimension, clause.filing)
    return found
