"""Heads as clients send them: what a benchmark with one constant line would not show. Pure.

    wrk       the load generator's own: a Host and nothing else
    curl      three fields
    browser   fifteen fields and cookies, more than a kilobyte
    java      Apache HttpClient behind a gateway: a token, trace identifiers, x-forwarded-*
    visitor   a browser's fields and a cookie that no two requests share: nothing of the whole comes again

Each is what goes on the wire on a kept connection, with what changes from request to request: its path, and the
identifiers where the client sends some. Values are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_COOKIES: Final = "; ".join(
    (
        "session=eyJ1IjoiNDIiLCJ0IjoiZGVtbyJ9.Zk1uRQ.h3Xq2m0bYVd8c5tF7o9wLrPzKsA",
        "csrf=Q2hhbmdlTWVOb3dQbGVhc2UxMjM0NTY3ODkw",
        "theme=dark",
        "locale=de-DE",
        "consent=%7B%22necessary%22%3Atrue%2C%22statistics%22%3Afalse%7D",
        "basket=7%3A2%2C19%3A1%2C23%3A4; currency=EUR; region=de-by; experiment=checkout-b",
        "_visit=1.2.1719830400.1719830400; seen=intro%2Ctour%2Cnews",
    )
)
_TOKEN: Final = ".".join(
    (
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImIxIiwidHlwIjoiSldUIn0",
        "eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYmlsbGluZyIsImF1ZCI6Im9yZGVycyIsImV4cCI6NDEwMjQ0NDgwMH0",
        "c2lnbmF0dXJlLW9mLXNpeHR5LWZvdXItYnl0ZXMtdGhhdC1pcy1tYWRlLXVwLWZvci10aGlzLWZpbGU",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client and the fields of its requests, Host first, in its order and its letters.

    `traced` says that it sends identifiers of its own, which differ for each request, `visited` the same of a cookie.
    """

    name: str
    fields: Sequence[tuple[str, str]]
    traced: bool = False
    visited: bool = False

    def head(self, number: int, *, host: str = "orders:8080") -> bytes:
        """Write the head of its n-th request: a GET of an order of that number."""
        lines = [f"GET /orders/{number}?currency=EUR HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.visited:
            lines.append(f"Cookie: visit={number:032x}")
        if self.traced:
            lines.append(f"traceparent: 00-{number + 1:032x}-{number + 1:016x}-01")
            lines.append(f"x-request-id: 7d9fa1c2-0b54-4c1e-9a3d-{number:012x}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


WRK: Final = Client(name="wrk", fields=())
CURL: Final = Client(name="curl", fields=(("User-Agent", "curl/8.5.0"), ("Accept", "*/*")))
BROWSER: Final = Client(
    name="browser",
    fields=(
        ("Connection", "keep-alive"),
        ("Cache-Control", "max-age=0"),
        ("sec-ch-ua", '"Chromium";v="126", "Google Chrome";v="126", "Not-A.Brand";v="8"'),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", '"Linux"'),
        ("Upgrade-Insecure-Requests", "1"),
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        ),
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
        ),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
        ("Referer", "http://orders:8080/orders"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
        ("Cookie", _COOKIES),
    ),
)
JAVA: Final = Client(
    name="java",
    fields=(
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
        ("Authorization", f"Bearer {_TOKEN}"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Tenant", "demo"),
        ("Connection", "keep-alive"),
        ("User-Agent", "Apache-HttpClient/5.3.1 (Java/21.0.3)"),
        ("Accept-Encoding", "gzip, x-gzip, deflate"),
    ),
    traced=True,
)
VISITOR: Final = Client(name="visitor", fields=BROWSER.fields[:-1], visited=True)
CLIENTS: Final = {client.name: client for client in (WRK, CURL, BROWSER, JAVA, VISITOR)}

ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 25 Nov 2025 15:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 46\r\nConnection: keep-alive\r\n\r\n"
)
"""The head of an application's answer."""
