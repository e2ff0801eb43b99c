"""Writes HTML and SVG elements; every text and every attribute is escaped on its only way in. Pure."""

from __future__ import annotations

import html
from typing import Final, NewType

Markup = NewType("Markup", str)
"""What may stand in a page as it is: nothing but `element`, `text` and `join` makes it."""

_EMPTY: Final = ("br", "meta")
"""Elements of HTML that have no end tag; we close them as XML does, which HTML reads as well."""


def text(words: str) -> Markup:
    """Escape words for a page; what XML 1.0 forbids (control characters) becomes U+FFFD.

    >>> text("<script> & co")
    '&lt;script&gt; &amp; co'
    """
    return Markup(html.escape("".join(character if _is_allowed(character) else "\ufffd" for character in words)))


def element(name: str, /, *children: Markup, **attributes: str | float) -> Markup:
    """Write one element. Of a name, a trailing underscore is dropped and others are hyphens; numbers have a decimal.

    >>> element("rect", class_="bar", stroke_width=1.25)
    '<rect class="bar" stroke-width="1.2"/>'
    >>> element("b", text("a < b"))
    '<b>a &lt; b</b>'
    """
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items())
    if not children and (name in _EMPTY or name in _SHAPES):
        return Markup(f"<{name}{words}/>")
    return Markup(f"<{name}{words}>{''.join(children)}</{name}>")


def join(*parts: Markup) -> Markup:
    """Put markup after markup."""
    return Markup("".join(parts))


_SHAPES: Final = ("rect", "line", "path", "circle", "polyline", "polygon")


def _attribute(value: str | float) -> str:
    return text(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _is_allowed(character: str) -> bool:
    return character in "\t\n\r" or " " <= character <= "\ud7ff" or "\ue000" <= character not in ("\ufffe", "\uffff")
