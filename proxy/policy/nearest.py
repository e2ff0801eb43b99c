"""Finds the few rules worth comparing with a denied call, so that a denial costs alike however many rules there are.

Denials are what an attacker can have for nothing. Comparing a call with every clause of a thousand rules takes 0.5 ms;
looking up the rules that share a principal, a path or another rare text with it takes some microseconds, and the
nearest miss is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

from proxy.policy.facts import Facts
from proxy.policy.rules import PolicyRule
from proxy.policy.table import filings

MAX_COMPARED: Final = 10
"""How many rules are compared clause by clause. A small set has as many, so a denial under a large one costs little
more; what lies beyond the ten that share most with the call hardly ever comes nearer."""

_Read = Callable[[Facts], Iterable[Hashable]]


class NearestRules:
    """ALLOW rules, filed under every text that they cannot match without."""

    __slots__ = ("_filed", "_first", "rules")

    def __init__(self, rules: Sequence[PolicyRule]) -> None:
        self.rules = tuple(rules)
        by_dimension: dict[Hashable, tuple[_Read, dict[Hashable, list[int]]]] = {}
        if len(self.rules) > MAX_COMPARED:
            for number, rule in enumerate(self.rules):
                for filing in filings(rule):
                    _, by_key = by_dimension.setdefault(filing.dimension, (filing.read, {}))
                    for key in filing.keys:
                        by_key.setdefault(key, []).append(number)
        self._filed = tuple(by_dimension.values())
        self._first = range(min(MAX_COMPARED, len(self.rules)))

    def near(self, facts: Facts) -> Sequence[PolicyRule]:
        """Take at most `MAX_COMPARED` rules, those that share most with the call before others.

        What few rules have counts for more, so that the one rule of a path goes before the many of a method. Of texts
        that more than `MAX_COMPARED` rules have, only the rarest counts, and only to fill the places that are left.
        """
        if not self._filed:
            return self.rules[:MAX_COMPARED]
        weights: dict[int, float] = {}
        common: Sequence[int] = self._first
        for read, by_key in self._filed:
            for key in read(facts):
                found = by_key.get(key)
                if found is None:
                    continue
                if len(found) > MAX_COMPARED:
                    common = found if common is self._first or len(found) < len(common) else common
                    continue
                weight = 1 + 1 / len(found)
                for number in found:
                    weights[number] = weights.get(number, 0.0) + weight
        if not weights:
            return [self.rules[number] for number in common[:MAX_COMPARED]]
        chosen = sorted(weights, key=lambda number: (-weights[number], number))[:MAX_COMPARED]
        for number in (*common[:MAX_COMPARED], *self._first):
            if len(chosen) >= MAX_COMPARED:
                break
            if number not in chosen:
                chosen.append(number)
        return [self.rules[number] for number in chosen]
