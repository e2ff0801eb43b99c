"""Reads JSON that can mean one thing only (RFC 8259): no name twice in an object, no NaN, not nested without end.

Of a name that stands twice two readers may take different values: a used token, a revoked key or another identity would
depend on who reads.
"""

from __future__ import annotations

import json
from typing import NoReturn


class JsonSyntaxError(ValueError):
    """The text is no JSON at all, and where it ceases to be."""


def parse_json(data: bytes) -> object:
    """Parses a document in UTF-8. Raises ValueError with a clause that quotes no value: it may hold a secret.

    >>> parse_json(b'{"a": [1, null]}')
    {'a': [1, None]}
    >>> parse_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the member 'a' stands there twice
    """
    try:
        document: object = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        # `from None`: the cause holds the whole document.
        raise JsonSyntaxError(f"{error.msg}, line {error.lineno}, column {error.colno}") from None
    return document


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the member {name[:60]!a} stands there twice")
            seen.add(name)
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
