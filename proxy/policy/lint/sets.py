"""Sets of values: whether one value lies in a list of others, and whether two lists can have anything in common.

Both questions are answered on the safe side. "Covers" and "are disjoint" are said only when they are certain, so a
finding that rests on them is never wrong about the two lists; what is too intricate is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from proxy.policy.model import Attribute
from proxy.policy.templates import is_template, template_test
from proxy.policy.values import glob_test, parse_ip_block, sort_forms

ADDRESSES: Final = frozenset({Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP})
_WHOLE: Final = frozenset({Attribute.SERVICE_ACCOUNT, Attribute.PORT})

MULTIPLE: Final = frozenset({Attribute.HEADER, Attribute.AUDIENCES, Attribute.CLAIM})
"""Attributes that may have several values at once: two lists without a common value can both match."""

MAX_PAIRS: Final = 4_096
"""How many pairs of values are compared before two lists count as not known to be disjoint."""

Covers = Callable[[str], bool]


def covering(attribute: Attribute, values: Iterable[str]) -> Covers:
    """Make a test: does every text that matches a given value match one of `values` too?

    >>> covers = covering(Attribute.PATH, ["/a/*", "/b/{*}"])
    >>> covers("/a/x"), covers("/a/x*"), covers("/b/7"), covers("/b/*"), covers("*")
    (True, True, True, False, False)
    """
    values = tuple(values)
    if attribute in ADDRESSES:
        return _covering_addresses(values)
    if attribute in _WHOLE:
        return frozenset(values).__contains__
    if attribute is Attribute.NAMESPACE:
        # A star of the value can only be matched by a star of the list, so it may stand for any text.
        return glob_test(values)
    if attribute is Attribute.REQUEST_PRINCIPAL:
        return _covering_request_principals(values)
    if attribute is Attribute.PATH:
        return _covering_paths(values)
    if attribute is Attribute.HOST:
        covers = _covering_text(tuple(value.lower() for value in values))
        return lambda value: covers(value.lower())
    return _covering_text(values)


def _covering_text(values: tuple[str, ...]) -> Covers:
    exact, prefixes, suffixes, anything = sort_forms(values)

    def covers(value: str) -> bool:
        if anything:
            return True
        if value.startswith("*"):
            return value[1:].endswith(suffixes)
        if value.endswith("*"):
            return value[:-1].startswith(prefixes)
        return value in exact or value.startswith(prefixes) or value.endswith(suffixes)

    return covers


def _covering_paths(values: tuple[str, ...]) -> Covers:
    plain = _covering_text(tuple(value for value in values if not is_template(value)))
    templates = {value: template_test(value) for value in values if is_template(value)}
    forms = sort_forms(value for value in values if not is_template(value))

    def covers(value: str) -> bool:
        if is_template(value):
            return forms.any or value in templates or value.partition("{")[0].startswith(forms.prefixes)
        return plain(value) or ("*" not in value and any(test(value) for test in templates.values()))

    return covers


def _covering_addresses(values: tuple[str, ...]) -> Covers:
    blocks = frozenset(map(parse_ip_block, values))
    lengths = sorted({(block.version, block.length) for block in blocks})

    def covers(value: str) -> bool:
        block = parse_ip_block(value)
        return any(
            version == block.version
            and length <= block.length
            and (version, length, block.network >> (block.length - length)) in blocks
            for version, length in lengths
        )

    return covers


def _covering_request_principals(values: tuple[str, ...]) -> Covers:
    whole = frozenset(values)

    def covers(value: str) -> bool:
        issuer, slash, _ = value.rpartition("/")
        return value in whole or "*" in whole or (slash != "" and "*" not in value and f"{issuer}/*" in whole)

    return covers


def are_disjoint(attribute: Attribute, ones: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Say whether no text can match a value of both lists.

    >>> are_disjoint(Attribute.PATH, ("/a/*",), ("/b", "/b/*")), are_disjoint(Attribute.PATH, ("/a*",), ("*.png",))
    (True, False)
    """
    if len(ones) * len(others) > MAX_PAIRS:
        plain = not any("*" in value for value in (*ones, *others)) and attribute not in ADDRESSES
        return plain and frozenset(ones).isdisjoint(others)
    may_meet = _meeting(attribute)
    return not any(may_meet(one, other) for one in ones for other in others)


def _meeting(attribute: Attribute) -> Callable[[str, str], bool]:
    if attribute in ADDRESSES:
        return _addresses_meet
    if attribute in _WHOLE:
        return str.__eq__
    if attribute is Attribute.NAMESPACE:
        return _namespaces_meet
    if attribute is Attribute.REQUEST_PRINCIPAL:
        return lambda one, other: one == other or "*" in one or "*" in other
    if attribute is Attribute.PATH:
        return _paths_meet
    if attribute is Attribute.HOST:
        return lambda one, other: _texts_meet(one.lower(), other.lower())
    return _texts_meet


def _texts_meet(one: str, other: str) -> bool:
    if one.startswith("*") or other.startswith("*"):
        if one.startswith("*") and other.startswith("*"):
            return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
        suffix, text = (one[1:], other) if one.startswith("*") else (other[1:], one)
        return text.endswith(("*", suffix))  # a prefix may go on to any end
    if one.endswith("*") or other.endswith("*"):
        if one.endswith("*") and other.endswith("*"):
            return one.startswith(other[:-1]) or other.startswith(one[:-1])
        prefix, text = (one[:-1], other) if one.endswith("*") else (other[:-1], one)
        return text.startswith(prefix)
    return one == other


def _paths_meet(one: str, other: str) -> bool:
    if not is_template(one) and not is_template(other):
        return _texts_meet(one, other)
    template, value = (one, other) if is_template(one) else (other, one)
    head = template.partition("{")[0]
    if is_template(value):
        other_head = value.partition("{")[0]
        return head.startswith(other_head) or other_head.startswith(head)
    if value.startswith("*"):
        return True
    if value.endswith("*"):
        return _texts_meet(head + "*", value)
    return template_test(template)(value)


def _namespaces_meet(one: str, other: str) -> bool:
    if "*" in one and "*" in other:
        return _texts_meet(one.partition("*")[0] + "*", other.partition("*")[0] + "*")
    return glob_test([one])(other) or glob_test([other])(one)


def _addresses_meet(one: str, other: str) -> bool:
    a, b = parse_ip_block(one), parse_ip_block(other)
    shared = min(a.length, b.length)
    return a.version == b.version and a.network >> (a.length - shared) == b.network >> (b.length - shared)
