"""Clauses prepared for comparing: what each demands, and what follows from it.

Identity fields speak of one thing in several words. The principal `cluster.local/ns/a/sa/b` says the namespace and
the service account too, so `principals` and `namespaces` of one source can contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from proxy.policy.lint.sets import MULTIPLE, Covers, are_disjoint, covering
from proxy.policy.model import IDENTITY, Attribute, Clause
from proxy.policy.principals import expand_aliases, names_trust_domain


class Fact(NamedTuple):
    """Something that holds where a clause holds: one attribute matches a value of a list, or none when `negated`.

    `clause` is the clause that says so, perhaps in other words. `loose` are the values with every trust domain left
    open when the mesh's own is not known: two names of one trust domain may be aliases.
    """

    clause: Clause
    attribute: Attribute
    negated: bool
    values: tuple[str, ...]
    loose: tuple[str, ...]
    covers: Covers

    @property
    def key(self) -> tuple[Attribute, str, tuple[str, ...]]:
        """Tell apart what is compared."""
        return self.attribute, self.clause.header, self.clause.claim


def fact(clause: Clause, trust_domains: tuple[str, ...]) -> Fact:
    """Prepare what a clause says itself."""
    values = clause.values
    if clause.attribute is Attribute.PRINCIPAL and trust_domains:
        values = expand_aliases(values, trust_domains)
    loose = values
    if clause.attribute is Attribute.PRINCIPAL and not trust_domains:
        loose = tuple("*/" + value.partition("/")[2] if names_trust_domain(value) else value for value in values)
    return _fact(clause, clause.attribute, values, loose)


def _fact(clause: Clause, attribute: Attribute, values: tuple[str, ...], loose: tuple[str, ...]) -> Fact:
    return Fact(clause, attribute, clause.negated, values, loose, covering(attribute, values))


def implied(clause: Clause) -> Iterator[Fact]:
    """Yield what a clause says of other attributes."""
    if clause.negated:
        return
    accounts = clause.values if clause.attribute is Attribute.SERVICE_ACCOUNT else ()
    if clause.attribute is Attribute.PRINCIPAL:
        parts = [value.split("/") for value in clause.values]
        if all(len(each) == 5 and each[1] == "ns" and each[3] == "sa" and "*" not in "".join(each) for each in parts):
            accounts = tuple(dict.fromkeys(f"{each[2]}/{each[4]}" for each in parts))
            yield _fact(clause, Attribute.SERVICE_ACCOUNT, accounts, accounts)
    if accounts:
        namespaces = tuple(dict.fromkeys(account.partition("/")[0] for account in accounts))
        yield _fact(clause, Attribute.NAMESPACE, namespaces, namespaces)


def facts_of(clauses: Iterable[Clause], trust_domains: tuple[str, ...]) -> tuple[Fact, ...]:
    """Collect what holds where all the clauses hold."""
    facts: list[Fact] = []
    for clause in clauses:
        facts.append(fact(clause, trust_domains))
        facts += implied(clause)
    return tuple(facts)


Topic = str | tuple[Attribute, str, tuple[str, ...]]
"""What two clauses must share to contradict each other. All identity fields are one topic."""


def topic(clause: Clause) -> Topic:
    """Say what a clause speaks of."""
    return "identity" if clause.attribute in IDENTITY else (clause.attribute, clause.header, clause.claim)


def by_topic(facts: Iterable[Fact]) -> dict[Topic, list[Fact]]:
    """Sort facts by what they speak of."""
    sorted_out: dict[Topic, list[Fact]] = {}
    for each in facts:
        sorted_out.setdefault(topic(each.clause), []).append(each)
    return sorted_out


def contradiction_of(
    clauses: Sequence[Clause], conditions: Mapping[Topic, Sequence[Fact]], trust_domains: tuple[str, ...]
) -> tuple[Fact, Fact] | None:
    """Find something that one of `clauses` says and that cannot hold with the others or with the conditions."""
    topics = {topic(clause) for clause in clauses}
    if len(topics) == len(clauses) and topics.isdisjoint(conditions):
        return None  # each speaks of something else: so do most rules, and no fact need be worked out
    facts = facts_of(clauses, trust_domains)
    others = [*facts, *(each for name in topics for each in conditions.get(name, ()))]
    for one in facts:
        for other in others:
            if one is not other and one.key == other.key and _exclude(one, other):
                return one, other
    return None


def _exclude(one: Fact, other: Fact) -> bool:
    """Say whether two facts about one thing cannot hold together. Two negatives always can."""
    if one.negated:
        return not other.negated and all(map(one.covers, other.values))
    if other.negated:
        return all(map(other.covers, one.values))
    return one.attribute not in MULTIPLE and are_disjoint(one.attribute, one.loose, other.loose)


def follows(wanted: Fact, facts: Iterable[Fact]) -> bool:
    """Say whether `wanted` holds wherever all the facts hold."""
    for given in facts:
        if wanted.attribute is Attribute.PRINCIPAL and wanted.values == ("*",) and not wanted.negated:
            if given.attribute in IDENTITY and not given.negated:
                return True
            continue
        if given.key != wanted.key:
            continue
        if not wanted.negated:
            if not given.negated and all(map(wanted.covers, given.values)):
                return True
        elif given.negated:
            if all(map(given.covers, wanted.values)):
                return True
        elif given.attribute not in MULTIPLE and are_disjoint(given.attribute, given.loose, wanted.loose):
            return True
    return False
