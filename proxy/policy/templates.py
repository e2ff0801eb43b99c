"""Path templates: `{*}` is one segment, `{**}` is the rest up to the literal end.

A template is compared segment by segment, so the time is linear in the path whatever the template says.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.documents import quoted
from proxy.policy.values import TextTest

ONE: Final = "{*}"
ANY: Final = "{**}"

_LITERAL: Final = re.compile(r"[A-Za-z0-9\-._~%!$&'()+,;:@=]+\Z")
# RFC 3986 pchar. The star is among them although no literal may hold one: a matcher whose `{*}` did not match a star
# let `/a/*/b` pass a DENY of `/a/{*}/b` (CVE-2025-46821).
_SEGMENT: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()+,;:@=*")


def is_template(value: str) -> bool:
    """Say whether a path value is a template; then a star has no other meaning in it."""
    return ONE in value or ANY in value


def template_problem(value: str) -> str:
    """Say what is wrong with a path value that holds a brace or an operator, "" when nothing is.

    >>> template_problem("/a/{*}/{**}")
    ''
    >>> template_problem("/a/{name}")
    '"{name}" is no segment that a path may have: only {*} and {**}, each alone in its segment, may have braces'
    """
    if not is_template(value):
        braced = next((part for part in value.split("/") if "{" in part or "}" in part), None)
        return "" if braced is None else _bad_segment(braced)
    if not value.startswith("/"):
        return "a path template must begin with /"
    segments = value.split("/")[1:]
    after_any = False
    for i, segment in enumerate(segments):
        if segment in (ONE, ANY):
            if after_any:
                return "{**} must be the last operator of a template, and stand once"
            after_any = segment == ANY
        elif not segment:
            if i != len(segments) - 1:
                return "a path template has no empty segment"
        elif not _LITERAL.match(segment):
            return _bad_segment(segment)
    return ""


def _bad_segment(segment: str) -> str:
    if "{" in segment or "}" in segment:
        return (
            f"{quoted(segment)} is no segment that a path may have: only {{*}} and {{**}}, each alone in its segment, "
            "may have braces"
        )
    if "*" in segment:
        return f"{quoted(segment)}: beside {{*}} and {{**}} a template has no star"
    return f"{quoted(segment)} holds a character that a path template may not have"


def template_test(value: str) -> TextTest:
    """Compile a valid template to a test of whole paths.

    >>> test = template_test("/store/{**}/cart")
    >>> test("/store/a/b/cart"), test("/store//cart"), test("/store/cart")
    (True, True, False)
    """
    segments = value.split("/")
    if ANY not in segments:
        count = len(segments)
        return lambda path: len(parts := path.split("/")) == count and _same(segments, parts)
    at = segments.index(ANY)
    head, tail = segments[:at], segments[at + 1 :]
    fewest = len(segments)

    def test(path: str) -> bool:
        parts = path.split("/")
        if len(parts) < fewest:
            return False
        end = len(parts) - len(tail)
        return (
            _same(head, parts[:at]) and parts[end:] == tail and all(_SEGMENT.issuperset(part) for part in parts[at:end])
        )

    return test


def _same(segments: list[str], parts: list[str]) -> bool:
    return all(
        part == segment or (segment == ONE and part != "" and _SEGMENT.issuperset(part))
        for segment, part in zip(segments, parts, strict=True)
    )
