"""Who may ask the admin listener: programs and people of this machine, not a page of a stranger in their browser.

A browser on this machine reaches loopback, and so does every page that it shows. Three things keep those pages out:

    Host      must name loopback: a stranger's name that was made to resolve to 127.0.0.1 (DNS rebinding) does not
    Origin    a browser adds it to whatever a page does to another site; our own page never needs one
    POST      takes a header that a form cannot send, and for which a script would have to ask us first (CORS)

Source: Fetch standard, "CORS-safelisted request-header" and "CORS-preflight fetch". No browser speaks to a unix socket,
so Host means nothing there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

from proxy.admin.pages import PageText

ACTION_HEADER: Final = "x-remora-admin"


def refusal(*, method: str, headers: Mapping[str, str], unix: bool) -> PageText | None:
    """Say why a request is not served; None when it is. Header names are lower case."""
    if "origin" in headers:
        return _refuse("a page in a browser sent this (it has an Origin); the admin listener serves none")
    if not unix and not names_loopback(headers.get("host", "")):
        return _refuse("Host does not name loopback; ask for 127.0.0.1, [::1] or localhost")
    if method == "POST" and headers.get(ACTION_HEADER) != "true":
        return _refuse("this does something; say that you mean it with the header X-Remora-Admin: true")
    return None


def names_loopback(host: str) -> bool:
    """Say whether a Host is `localhost` or a literal address of loopback, with or without a port.

    >>> [names_loopback(host) for host in ("127.0.0.1:15000", "[::1]:15000", "localhost", "127.0.0.1.example.org")]
    [True, True, True, False]
    """
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    elif not (port.isascii() and port.isdigit()):
        return False
    if name.lower() == "localhost":
        return True
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        address = ipaddress.ip_address(name[1:-1] if bracketed else name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return bracketed and address.is_loopback and address.scope_id is None
    return not bracketed and address.is_loopback


def _refuse(sentence: str) -> PageText:
    return PageText(status=403, body=f"{sentence}\n".encode())
