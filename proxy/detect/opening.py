"""Judge how a client opens a connection to a port that takes plaintext: mesh TLS, TLS of the application, plaintext.

    whole ClientHello with a mesh ALPN name     MESH_TLS      ours to terminate
    any other TLS, malformed or cut off too     OTHER_TLS     the application's own: opaque bytes without identity
    everything else                             PLAINTEXT

Only MESH_TLS can give a peer an identity, and only a hello that was read to its end is that: whatever is doubtful
comes without identity, and policy decides on that.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from proxy.detect.client_hello import read_client_hello
from proxy.detect.first_bytes import fits_client_hello


class Opens(enum.Enum):
    """What a connection opens with."""

    MESH_TLS = "mesh_tls"
    OTHER_TLS = "other_tls"
    PLAINTEXT = "plaintext"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a connection begins; `server_name` is what a TLS client asks for, "" if it names nobody."""

    opens: Opens
    server_name: str = ""


def judge_opening(first: bytes, *, mesh: Collection[bytes], ended: bool) -> Opening | None:
    """Judge the bytes seen so far; `mesh` are the ALPN names of the mesh, `ended` says that no more bytes come.

    None: more bytes are needed, which is never so when `ended`.
    """
    if not first:
        return Opening(opens=Opens.PLAINTEXT) if ended else None
    if not fits_client_hello(first):
        return Opening(opens=Opens.PLAINTEXT)
    try:
        hello = read_client_hello(first)
    except ValueError:
        return Opening(opens=Opens.OTHER_TLS)
    if hello is None:
        return Opening(opens=Opens.OTHER_TLS) if ended else None
    opens = Opens.MESH_TLS if any(name in mesh for name in hello.alpn) else Opens.OTHER_TLS
    return Opening(opens=opens, server_name=hello.server_name)
