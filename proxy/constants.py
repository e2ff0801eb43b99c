"""Facts: numbers and names that somebody else fixed, or that follow from one, each with its reason.

Nothing here is for a user to turn: what may be turned is in `proxy/limits.py` and `proxy/config.py`.
"""

from __future__ import annotations

from typing import Final

# --- ports and user: Istio's, so that what people know of a mesh (capture rules, dashboards, probes) fits ours ---

ADMIN_PORT: Final = 15000
"""Admin pages; loopback only, because they show everything."""
OUTBOUND_CAPTURE_PORT: Final = 15001
"""Where capture rules send what the application dials."""
INBOUND_CAPTURE_PORT: Final = 15006
"""Where capture rules send what arrives for the application."""
HEALTH_PORT: Final = 15020
"""/livez, /readyz, /metrics: what a kubelet and a scraper reach without an identity."""
INBOUND_SOURCE_V4: Final = "127.0.0.6"
INBOUND_SOURCE_V6: Final = "::6"
"""From where the sidecar dials its application: capture rules let what comes from there pass. All of 127.0.0.0/8 is
local to any host; ::6 is added to `lo` by the capture step."""
PROXY_UID: Final = 1337
"""User and group of the sidecar: capture rules let this uid pass, so the sidecar never captures itself."""

# --- ALPN on the mesh wire (RFC 7301): Envoy configured as an Istio sidecar offers and expects these ---

ALPN_ISTIO_HTTP_11: Final = b"istio-http/1.1"
ALPN_ISTIO_HTTP_10: Final = b"istio-http/1.0"
ALPN_ISTIO_H2: Final = b"istio-h2"
ALPN_ISTIO: Final = b"istio"
"""Mesh TLS whose content is opaque."""
ALPN_ISTIO_PEER_EXCHANGE: Final = b"istio-peer-exchange"
"""What Istio's sidecars offer beside `istio`, to exchange metadata. Never chosen: nobody here speaks it."""
ALPN_HTTP_11: Final = b"http/1.1"
"""RFC 7301 section 6: a plain HTTPS client such as curl with a certificate."""
ALPN_H2: Final = b"h2"
"""RFC 9113 section 3.2."""

ALPN_MESH: Final = frozenset(
    {ALPN_ISTIO_HTTP_11, ALPN_ISTIO_HTTP_10, ALPN_ISTIO_H2, ALPN_ISTIO, ALPN_ISTIO_PEER_EXCHANGE}
)
"""Who offers one of these speaks mesh TLS: where plaintext is taken too, it is told from TLS of the application."""

ALPN_PREFERENCE_HTTP: Final = (ALPN_ISTIO_HTTP_11, ALPN_ISTIO_HTTP_10, ALPN_HTTP_11, ALPN_ISTIO)
"""A server's order on http and auto ports. HTTP/2 is absent because it is not served: a name chosen is a promise."""
ALPN_PREFERENCE_TCP: Final = (ALPN_ISTIO,)
"""A server's order on tcp ports."""

# --- sizes ---

READ_SIZE: Final = 16_384
"""Bytes per read: the most that one TLS record carries (RFC 8446 section 5.1).

Smaller, and a record's rest stays in OpenSSL where no poll sees it, so `pending()` has to be asked after each read;
larger gains nothing, because SSL_read never returns more than one record.
"""
LISTEN_BACKLOG: Final = 1_024
"""Connections that the kernel queues while the loop is busy: at 1,000 handshakes a second, one second of them.

The kernel cuts it to net.core.somaxconn (4,096 by default). Below about 100 a burst of a load balancer is refused.
"""
MAX_UNIX_PATH: Final = 107
"""Bytes of a unix socket's path on Linux: `sun_path` has 108 with its NUL (unix(7))."""
MAX_DNS_NAME: Final = 253
"""Characters of a DNS name in text form (RFC 1035 section 2.3.4: 255 octets on the wire)."""
MAX_DNS_LABEL: Final = 63
"""Characters of one label (RFC 1035 section 2.3.4)."""

# --- times that belong to a protocol, not to a taste ---

POD_GRACE_PERIOD: Final = 30.0
"""Seconds between SIGTERM and SIGKILL of a pod that says nothing (terminationGracePeriodSeconds)."""
NODE_KEEP_ALIVE: Final = 5.0
"""Seconds after which Node.js, uvicorn and Apache close an idle keep-alive connection."""

DEFAULT_ADMIN: Final = "127.0.0.1:15000"
"""Where commands look for the admin listener of a sidecar; 15000 by Istio's convention."""
