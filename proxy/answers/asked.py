"""What is asked: one request, or one opaque connection, with everything that a sidecar would see of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from certs.spiffe import SpiffeId
from proxy.types import PeerIdentity

SCHEME: Final = "spiffe://"
DEFAULT_PORT: Final = 8080
"""The workload port of a question that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request, or with `opaque` one connection that is not HTTP.

    `principal` is the caller's identity with or without `spiffe://`, "" for a peer without one. `target` is the path
    as sent, with its query. Without `host` the request is one of HTTP/1.0 that names none. `token` is a JWT to be
    verified; `claims` are those of a token that counts as verified. Addresses are "" where they are not known.
    """

    principal: str = ""
    method: str = "GET"
    target: str = "/"
    host: str = ""
    port: int = DEFAULT_PORT
    headers: tuple[tuple[str, str], ...] = ()
    token: str = ""
    claims: Mapping[str, Any] | None = None
    source_ip: str = ""
    destination_ip: str = ""
    sni: str = ""
    opaque: bool = False


def peer_of(principal: str) -> PeerIdentity | None:
    """Make the peer that a verified certificate with this identity gives; raises SpiffeIdError.

    >>> peer_of("cluster.local/ns/demo/sa/web").spiffe_id.service_account, peer_of("")
    ('web', None)
    """
    if not principal:
        return None
    spiffe_id = SpiffeId.parse(principal if principal.startswith(SCHEME) else f"{SCHEME}{principal}")
    return PeerIdentity(spiffe_id=spiffe_id, not_after=math.inf, serial="", fingerprint="00" * 32)
