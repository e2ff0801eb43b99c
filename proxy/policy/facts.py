"""What a decision looks at: the attributes of one connection or request, in the form in which clauses compare them.

An attribute that is absent is the empty text, or no text at all where there may be several. No value form matches the
empty text, so a positive clause on an absent attribute fails and a negative one holds, which is what Istio's semantics
say.
"""

from __future__ import annotations

from typing import Final

from proxy.policy.values import IpNumber, maybe_ip
from proxy.types import ConnectionAttributes, PeerIdentity, RequestAttributes, VerifiedToken

FORWARDED_FOR: Final = b"x-forwarded-for"

MAX_ADDRESS: Final = 64
"""The longest text that is read as an address: 45 characters of the longest IPv6 address, and a zone."""

MAX_PREFIXES: Final = 16
"""How many segments of a path are looked up. A peer chooses the path: with the limit one of 8,000 slashes costs what
one of 16 costs, and rules that agree in their first 16 segments are tried one after the other."""


class Facts:
    """The attributes of one connection or request.

    Built once for each decision: about 1 µs, so everything that few policies use is worked out when it is asked for.
    """

    __slots__ = (
        "_addresses",
        "_lines",
        "_path_prefixes",
        "_remote",
        "connection",
        "host",
        "is_http",
        "method",
        "path",
        "peer",
        "principal",
        "request",
        "token",
    )

    def __init__(self, connection: ConnectionAttributes, request: RequestAttributes | None) -> None:
        self.connection = connection
        self.request = request
        self.peer: PeerIdentity | None = connection.peer
        peer = connection.peer
        self.principal = f"{peer.spiffe_id.trust_domain}{peer.spiffe_id.path}" if peer is not None else ""
        self.is_http = request is not None
        self.token: VerifiedToken | None
        if request is not None:
            self.method = request.method
            self.path = request.path
            self.host = request.host.lower()
            self.token = request.token
        else:
            self.method = self.path = self.host = ""
            self.token = None
        self._addresses: dict[str, IpNumber | None] | None = None
        self._lines: dict[bytes, list[str]] | None = None
        self._path_prefixes: list[str] | None = None
        self._remote: tuple[int, str] | None = None

    @property
    def port(self) -> str:
        """The workload port, as policies write it."""
        return str(self.connection.destination_port)

    @property
    def trust_domain(self) -> str:
        """The trust domain of the peer."""
        return str(self.peer.spiffe_id.trust_domain) if self.peer is not None else ""

    @property
    def namespace(self) -> str:
        """The namespace of the peer; empty unless its path is exactly `/ns/<namespace>/sa/<service account>`."""
        return (self.peer and self.peer.spiffe_id.namespace) or ""

    @property
    def service_account(self) -> str:
        """The peer's `<namespace>/<service account>`, or the empty text."""
        if self.peer is None or not self.peer.spiffe_id.namespace:
            return ""
        return f"{self.peer.spiffe_id.namespace}/{self.peer.spiffe_id.service_account}"

    @property
    def path_prefixes(self) -> list[str]:
        """The whole-segment prefixes of the path."""
        if self._path_prefixes is None:
            self._path_prefixes = segment_prefixes(self.path)
        return self._path_prefixes

    def header_lines(self, name: bytes) -> list[str]:
        """Collect every line of a header as Latin-1, in which each byte is one character: nothing fails to decode."""
        if self.request is None:
            return []
        if self._lines is None:
            lines: dict[bytes, list[str]] = {}
            for line_name, value in self.request.headers:
                lines.setdefault(line_name, []).append(value.decode("latin-1"))
            self._lines = lines
        return self._lines.get(name, [])

    def remote_ip(self, trusted_proxies: int) -> str:
        """Find the address of the client behind `trusted_proxies` proxies of ours.

        With 0, on an opaque connection, and when x-forwarded-for has fewer entries or no address there, it is the
        address of the peer: what a client wrote further left is never believed.
        """
        if self.request is None or trusted_proxies == 0:
            return self.connection.source_ip
        if self._remote is None or self._remote[0] != trusted_proxies:
            entries = ",".join(self.header_lines(FORWARDED_FOR)).rsplit(",", trusted_proxies)
            entry = entries[-trusted_proxies].strip(" \t") if len(entries) >= trusted_proxies else ""
            found = entry if self.address(entry) is not None else self.connection.source_ip
            self._remote = trusted_proxies, found
        return self._remote[1]

    def address(self, text: str) -> IpNumber | None:
        """Read an address, once however many clauses compare it; None when the text is none."""
        if self._addresses is None:
            self._addresses = {}
        try:
            return self._addresses[text]
        except KeyError:
            number = maybe_ip(text) if len(text) <= MAX_ADDRESS else None
            self._addresses[text] = number
            return number


def segment_prefixes(text: str) -> list[str]:
    """List the first `MAX_PREFIXES` prefixes that end where a segment ends, the text itself included.

    >>> segment_prefixes("/api/v1/orders"), segment_prefixes("/"), segment_prefixes("/a/")
    (['/api', '/api/v1', '/api/v1/orders'], ['/'], ['/a', '/a/'])
    """
    prefixes = segment_borders(text)
    if len(prefixes) < MAX_PREFIXES:
        prefixes.append(text)
    return prefixes


def segment_borders(text: str) -> list[str]:
    """List the prefixes that end before a slash, at most `MAX_PREFIXES`; they are prefixes of any longer text too.

    >>> segment_borders("/api/v1/ord")
    ['/api', '/api/v1']
    """
    borders: list[str] = []
    at = text.find("/", 1)
    while at > 0 and len(borders) < MAX_PREFIXES:
        borders.append(text[:at])
        at = text.find("/", at + 1)
    return borders
