"""Where a `jwksUri` leads: the URI taken apart, and every address that its host resolves to judged.

STRICTER than Istio, which fetches in its control plane whatever the URI says; the rules are `proxy.authn.uris`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from proxy.authn.uris import address_problem, uri_problem
from proxy.errors import Reason, RemoraError

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class FetchError(RemoraError):
    """A key set that could not be fetched, with a sentence for a person."""

    reason = Reason.TOKEN_KEYS_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A `jwksUri` as it is asked for: `authority` is the Host to send, `resource` the path with its query."""

    secure: bool
    host: str
    port: int
    authority: str
    resource: str


def read_target(uri: str, *, allow_loopback: bool) -> Target:
    """Take a `jwksUri` apart. Raises FetchError when it may not be fetched (any more: the configuration may change).

    >>> read_target("https://issuer.example/keys?set=1", allow_loopback=False).resource
    '/keys?set=1'
    """
    problem = uri_problem(uri, allow_loopback=allow_loopback)
    if problem:
        raise FetchError(problem)
    parts = urlsplit(uri)
    return Target(
        secure=parts.scheme == "https",
        host=parts.hostname or "",
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        authority=parts.netloc,
        resource=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def is_literal(host: str) -> bool:
    """Say whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def refuse_address(address: str, *, secure: bool, allow_loopback: bool) -> None:
    """Raise FetchError unless a connection to this address is allowed; plain http goes to loopback only."""
    problem = address_problem(address, allow_loopback=allow_loopback)
    if problem:
        raise FetchError(f"its address {address} {problem}")
    if not secure and not address_problem(address, allow_loopback=False):  # then it is not loopback
        raise FetchError(f"its address {address} is not loopback, so the URI must begin with https://")
