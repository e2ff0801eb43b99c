"""JSON of strangers, read in one way only (RFC 8259): no name twice, no NaN, bounded depth."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32
"""Levels of lists and objects. Claims of real issuers have at most 6 (Keycloak's `resource_access`); whoever walks or
writes a value later may recurse."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object in UTF-8. Raises ValueError with a sentence.

    RFC 7519 section 4 lets a reader refuse a name that stands twice or take the last; two readers that choose
    differently see two different tokens, so it is refused here.

    >>> parse_object(b'{"sub": "a", "sub": "b"}')
    Traceback (most recent call last):
    ValueError: the name "sub" stands twice in an object
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"it has more than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    if not _is_shallow(value):
        raise ValueError(f"it has more than {MAX_DEPTH} levels")
    if "\\u" in text and not _is_unicode(value):
        raise ValueError("it has half of a surrogate pair, which no text can hold")
    return value


def _is_unicode(value: dict[str, Any]) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {json.dumps(name[:64])} stands twice in an object")
            seen.add(name)
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _children(outer)]
        if not level:
            return True
    return False


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
