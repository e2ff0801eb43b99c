"""A rule as one boolean expression: what its dashes mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.documents import quoted, shown
from proxy.policy.lint.sets import ADDRESSES
from proxy.policy.model import Action, Attribute, Clause, Rule
from proxy.policy.templates import is_template

MAX_VALUES: Final = 20
"""Values of a clause, clauses of an item and items of a list that are written out."""


def boolean_form(rule: Rule, action: Action, most: int = MAX_VALUES) -> str:
    """Write a rule as an expression in AND, OR and NOT.

    >>> from proxy.policy.examples import rule_of
    >>> print(boolean_form(rule_of('from: [{source: {namespaces: [a]}}, {source: {principals: ["*"]}}]'), Action.ALLOW))
    ALLOW if (namespace is "a") OR (principal is any)
    """
    parts = [
        _any_of(rule.sources, most),
        _any_of(rule.operations, most),
        _all_of(rule.conditions, most) if rule.conditions else "",
    ]
    parts = [part for part in parts if part]
    if not parts:
        return f"{action.value} always"
    several = len(parts) > 1
    return f"{action.value} if " + " AND ".join(f"({part})" if several and " OR " in part else part for part in parts)


def alternatives_form(alternatives: Iterable[tuple[Clause, ...]], word: str, most: int = 4) -> str:
    """Write alternatives, each in brackets, joined by OR, or by AND as a writer may have meant it."""
    alternatives = tuple(alternatives)
    left = len(alternatives) - most
    forms = [f"({_all_of(alternative, most)})" for alternative in alternatives[:most]]
    return f" {word} ".join(forms if left <= 0 else [*forms, f"({left} more)"])


def _any_of(alternatives: tuple[tuple[Clause, ...], ...], most: int) -> str:
    if len(alternatives) == 1:
        return _all_of(alternatives[0], most)
    return alternatives_form(alternatives, "OR", most)


def _all_of(clauses: tuple[Clause, ...], most: int) -> str:
    forms = [clause_form(clause, most) for clause in clauses[:most]]
    left = len(clauses) - most
    return " AND ".join(forms if left <= 0 else [*forms, f"({left} more)"]) or "anything"


def clause_form(clause: Clause, most: int = MAX_VALUES) -> str:
    """Write one clause: `path is "/a" or begins with "/b/"`, behind NOT when it is negative."""
    words: list[str] = []
    last = ""
    for value in clause.values[:most]:
        verb, text = _value_form(clause.attribute, value)
        words.append(text if verb == last else f"{verb} {text}".strip())
        last = verb
    left = len(clause.values) - most
    listed = " or ".join(words) + (f" or one of {left} more" if left > 0 else "")
    form = f"{_subject(clause)} {listed}"
    return f"NOT ({form})" if clause.negated else form


def _subject(clause: Clause) -> str:
    if clause.attribute is Attribute.HEADER:
        return f"header {shown(clause.header)}"
    if clause.attribute is Attribute.CLAIM:
        return f"claim {shown('.'.join(clause.claim))}"
    return str(clause.attribute.value)


def _value_form(attribute: Attribute, value: str) -> tuple[str, str]:
    if value == "*":
        return "is", "any"
    if attribute in ADDRESSES and "/" in value:
        return "is in", value
    if (attribute is Attribute.PATH and is_template(value)) or (
        attribute is Attribute.NAMESPACE and "*" in value.strip("*")
    ):
        return "is like", quoted(value)
    if value.startswith("*"):
        return "ends with", quoted(value[1:])
    if value.endswith("*"):
        return "begins with", quoted(value[:-1])
    return "is", quoted(value) if attribute is not Attribute.PORT and attribute not in ADDRESSES else value
