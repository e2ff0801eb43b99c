"""JSON of strangers, read in one way only (RFC 8259): no name twice, no NaN, bounded depth."""

from __future__ import annotations

import json
from typing import Any, Final

from certs.strict_json import JsonSyntaxError, parse_json

MAX_DEPTH: Final = 32
"""Levels of lists and objects. Claims of real issuers have at most 6 (Keycloak's `resource_access`); whoever walks or
writes a value later may recurse."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object in UTF-8. Raises ValueError with a sentence.

    RFC 7519 section 4 lets a reader refuse a name that stands twice or take the last; two readers that choose
    differently see two different tokens, so it is refused here.

    >>> parse_object(b'{"sub": "a", "sub": "b"}')
    Traceback (most recent call last):
    ValueError: the member 'sub' stands there twice
    """
    try:
        value: Any = parse_json(data)
    except JsonSyntaxError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    if not _is_shallow(value):
        raise ValueError(f"it has more than {MAX_DEPTH} levels")
    if b"\\u" in data and not _is_unicode(value):
        raise ValueError("it has half of a surrogate pair, which no text can hold")
    return value


def _is_unicode(value: dict[str, Any]) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _children(outer)]
        if not level:
            return True
    return False


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
