"""Who connects to a proxy under test: identities of several trust domains, addresses, server names.

    caller = calls_as("cluster.local/ns/demo/sa/web", ip="127.0.0.9", sni="orders.demo")
    stream = connect(sidecar.port, caller, alpn=(b"istio-http/1.1",))

A caller without identity speaks plaintext.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh import Stream, authority
from mesh_streams import tls_on

from certs.authority import Svid
from certs.testing import MemoryAuthority, Shape

OWN, ALIAS, FAR = "cluster.local", "old.example", "far.example"
"""Our trust domain, the one that it had before, and one that somebody else runs and that we trust."""
PROBE: Final = b"not TLS, not HTTP"
"""What an opaque connection says; long enough for an inspector of first bytes to be sure."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who connects from where to where; without `certificate` it speaks plaintext."""

    certificate: Svid | None = field(default=None, compare=False)
    principal: str = ""
    ip: str = "127.0.0.1"
    to: str = "127.0.0.1"
    port: int = 8080
    sni: str = ""


@functools.cache
def authority_of(trust_domain: str) -> MemoryAuthority:
    """The authority of a trust domain; its keys are made once."""
    return authority() if trust_domain == OWN else MemoryAuthority(trust_domain)


TRUST: Final = [authority_of(name).bundle for name in (OWN, ALIAS, FAR)]


@functools.cache
def certificate(principal: str) -> Svid:
    """The certificate of a principal, whatever its path."""
    issuer = authority_of(principal.partition("/")[0])
    return issuer.shaped(Shape(uris=(f"spiffe://{principal}".encode(),)))


def calls_as(principal: str, **more: Any) -> Caller:
    """A caller with this identity, in plaintext when it is empty."""
    return Caller(certificate=certificate(principal) if principal else None, principal=principal, **more)


def connect(port: int, caller: Caller, source_port: int = 0, *, alpn: Sequence[bytes] = ()) -> Stream:
    """Connect as `caller`, with a PROXY header (its source port is `source_port`) unless that is 0."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind((caller.ip, 0))
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_port:
            family = "TCP6" if ":" in caller.to else "TCP4"
            source = f"::ffff:{caller.ip}" if ":" in caller.to else caller.ip
            sock.sendall(f"PROXY {family} {source} {caller.to} {source_port} {caller.port}\r\n".encode())
    except OSError:
        sock.close()
        raise
    if caller.certificate is None:
        return Stream(sock)
    return tls_on(sock, caller.certificate, alpn=alpn, server_name=caller.sni)
