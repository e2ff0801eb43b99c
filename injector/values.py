"""Reads what may be of any shape: a part of a foreign document as a mapping, or as a list of mappings, else empty."""

from __future__ import annotations

from collections.abc import Mapping

Document = dict[str, object]
"""A mapping of a manifest as the API has it."""


def mapping(value: object) -> Mapping[str, object]:
    """Take a mapping; anything else counts as an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, object]]:
    """Take the mappings of a list; anything else counts as none."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def names_of(value: object) -> list[str]:
    """Give the names of the mappings of a list.

    >>> names_of([{"name": "app"}, {}, 5])
    ['app']
    """
    return [str(each["name"]) for each in mappings(value) if "name" in each]
