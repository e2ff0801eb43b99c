"""Reads and writes SPIFFE IDs: the names that certificates carry and policies compare.

A SPIFFE ID is a URI of two parts, `spiffe://<trust domain><path>`:

    spiffe://cluster.local/ns/demo/sa/orders
             ------------- ------------------
             trust domain  path: who it is inside that domain (here: a Kubernetes ServiceAccount)

The trust domain says whose authority may vouch for the name, so a name that two programs read differently is a way
in. Three habits follow, and every function here keeps them:

1. An ID is judged as the bytes that stand on the wire, by one regular expression that must match all of them. (`$`
   also matches before a final newline; a library that used it took `spiffe://td/a\\n` for a valid name.)
2. Nothing is normalised. What is not canonical is refused: no case folding, no percent-decoding, no trimming.
3. A `SpiffeId` that exists is valid. There is no way to construct one that breaks a rule.

The rules are those of the SPIFFE-ID standard, section 2. They are numbered here so that an error, a test and the
documentation can name the same one:

    ID1  the scheme is `spiffe`, in lower case         ID7   a path has only A-Z a-z 0-9 . - _ between its slashes
    ID2  the trust domain is not empty                 ID8   no empty segment, no slash at the end
    ID3  no user info, no port                         ID9   no segment `.` or `..`
    ID4  a trust domain has only a-z 0-9 . - _         ID10  at most 2048 bytes in all
    ID5  that is all: 1.2.3.4 and a..b are names too   ID11  at most 255 bytes of trust domain
    ID6  no query, no fragment                         ID12  compared byte by byte
                                                       ID13  the path may be absent (but not in a workload's leaf)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

TrustDomain = NewType("TrustDomain", str)
"""The name of a trust domain, such as `cluster.local`: valid after `parse_trust_domain`."""

SCHEME = b"spiffe://"

MAX_ID_BYTES = 2048
"""SPIFFE-ID section 2.3: everybody must accept this much, nobody should make more. STRICTER: more is refused."""

MAX_TRUST_DOMAIN_BYTES = 255
"""SPIFFE-ID section 2.1, after the host of RFC 3986 section 3.2.2."""

_TRUST_DOMAIN = re.compile(rb"[a-z0-9._-]+")
# The look-ahead refuses the segments `.` and `..` while `...` and `.a` stay legal.
_PATH = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
_SEGMENT = re.compile(rb"[A-Za-z0-9._-]+")
_SHOWN_BYTES = 120


class SpiffeIdError(ValueError):
    """A text that is no SPIFFE ID. `rule` is the broken rule (`ID4`), the message says what to write instead."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One valid SPIFFE ID; `path` is "" or begins with a slash.

    Raises SpiffeIdError when made of parts that break a rule. Two IDs are equal when their bytes are (ID12).

    >>> SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders").service_account
    'orders'
    """

    trust_domain: TrustDomain
    path: str = ""

    def __post_init__(self) -> None:
        trust_domain, path = _bytes(self.trust_domain), _bytes(self.path)
        _check_trust_domain(trust_domain)
        _check_path(path)
        if len(SCHEME) + len(trust_domain) + len(path) > MAX_ID_BYTES:
            raise _too_long(len(SCHEME) + len(trust_domain) + len(path))

    @classmethod
    def parse(cls, value: str | bytes) -> SpiffeId:
        r"""Reads a SPIFFE ID from the exact bytes of a certificate or the text of a file.

        Raises SpiffeIdError naming the first broken rule (ID1 to ID11). Never trims, folds or decodes.

        >>> str(SpiffeId.parse(b"spiffe://cluster.local/ns/demo/sa/orders"))
        'spiffe://cluster.local/ns/demo/sa/orders'
        >>> SpiffeId.parse(b"spiffe://cluster.local/a\n")
        Traceback (most recent call last):
        certs.spiffe.SpiffeIdError: '/a\n' is no path of a SPIFFE ID: byte 0x0a at offset 2; use only A-Z a-z 0-9 . - _
        """
        raw = _bytes(value)
        if len(raw) > MAX_ID_BYTES:
            raise _too_long(len(raw))
        if not raw.startswith(SCHEME):
            raise SpiffeIdError("ID1", f"{_shown(raw)} is no SPIFFE ID: it must begin with spiffe:// in lower case")
        rest = raw[len(SCHEME) :]
        for mark, name in ((b"?", "query"), (b"#", "fragment")):
            if mark in rest:
                raise SpiffeIdError("ID6", f"{_shown(raw)} has a {name}; a SPIFFE ID ends with its path")
        host, slash, path = rest.partition(b"/")
        _check_trust_domain(host)
        _check_path(slash + path)
        return cls(TrustDomain(host.decode("ascii")), (slash + path).decode("ascii"))

    @classmethod
    def for_service_account(cls, trust_domain: TrustDomain, namespace: str, service_account: str) -> SpiffeId:
        """Names the workloads of a Kubernetes ServiceAccount, as Istio and SPIRE do.

        Raises SpiffeIdError when a part is empty or is not exactly one path segment.

        >>> str(SpiffeId.for_service_account(parse_trust_domain("cluster.local"), "demo", "orders"))
        'spiffe://cluster.local/ns/demo/sa/orders'
        """
        for what, part in (("namespace", namespace), ("service account", service_account)):
            raw = _bytes(part)
            if not raw:
                raise SpiffeIdError("ID8", f"the {what} is empty; name the one that the workload runs in")
            if not _SEGMENT.fullmatch(raw):
                raise SpiffeIdError("ID7", f"the {what} {_shown(raw)} may hold only A-Z a-z 0-9 . - _")
        return cls(trust_domain, f"/ns/{namespace}/sa/{service_account}")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"

    @property
    def namespace(self) -> str | None:
        """The Kubernetes namespace, None unless the path is exactly `/ns/<namespace>/sa/<service account>`."""
        account = self._account()
        return account and account[0]

    @property
    def service_account(self) -> str | None:
        """The Kubernetes ServiceAccount, None unless the path is exactly `/ns/<namespace>/sa/<service account>`."""
        account = self._account()
        return account and account[1]

    def _account(self) -> tuple[str, str] | None:
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", service_account]:
                return namespace, service_account
            case _:
                return None


def parse_trust_domain(value: str | bytes) -> TrustDomain:
    """Reads the bare name of a trust domain, as it stands in a configuration file.

    Raises SpiffeIdError (ID2, ID3, ID4, ID11); a whole SPIFFE ID is refused, with the name to write instead.

    >>> parse_trust_domain("cluster.local")
    'cluster.local'
    """
    raw = _bytes(value)
    if raw.startswith(SCHEME):
        name = raw[len(SCHEME) :].partition(b"/")[0]
        raise SpiffeIdError("ID4", f"{_shown(raw)} is a URI; write the trust domain alone: {_shown(name)}")
    _check_trust_domain(raw)
    return TrustDomain(raw.decode("ascii"))


def _check_trust_domain(host: bytes) -> None:
    if not host:
        raise SpiffeIdError("ID2", "the trust domain is empty; write it after spiffe://, such as cluster.local")
    if len(host) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdError(
            "ID11", f"the trust domain has {len(host)} bytes; at most {MAX_TRUST_DOMAIN_BYTES} are allowed"
        )
    if _TRUST_DOMAIN.fullmatch(host):
        return
    if b"@" in host:
        raise SpiffeIdError("ID3", f"the trust domain {_shown(host)} has user info; remove everything up to the @")
    if b":" in host:
        raise SpiffeIdError("ID3", f"the trust domain {_shown(host)} has a port; a SPIFFE ID has none")
    if b"%" in host:
        raise SpiffeIdError("ID4", f"the trust domain {_shown(host)} is percent-encoded; write the plain characters")
    if host.lower() != host and _TRUST_DOMAIN.fullmatch(host.lower()):
        raise SpiffeIdError("ID4", f"the trust domain {_shown(host)} has capitals; write {_shown(host.lower())}")
    raise SpiffeIdError(
        "ID4", f"{_shown(host)} is no trust domain: {_first_stray(host, b'._-')}; use only a-z 0-9 . - _"
    )


def _check_path(path: bytes) -> None:
    if _PATH.fullmatch(path):
        return
    if not path.startswith(b"/"):
        raise SpiffeIdError("ID7", f"the path {_shown(path)} does not begin with a slash")
    if b"%" in path:
        raise SpiffeIdError("ID7", f"the path {_shown(path)} is percent-encoded; write the plain characters")
    for segment in path[1:].split(b"/"):
        if segment in (b".", b".."):
            raise SpiffeIdError("ID9", f"the path {_shown(path)} has the segment {_shown(segment)}; remove it")
        if segment and not _SEGMENT.fullmatch(segment):
            raise SpiffeIdError(
                "ID7",
                f"{_shown(path)} is no path of a SPIFFE ID: {_first_stray(path, b'/._-')}; use only A-Z a-z 0-9 . - _",
            )
    if path.endswith(b"/"):
        raise SpiffeIdError("ID8", f"the path {_shown(path)} ends with a slash; remove it")
    raise SpiffeIdError("ID8", f"the path {_shown(path)} has an empty segment; write one slash between segments")


def _bytes(value: str | bytes) -> bytes:
    # Any text becomes some bytes (lone surrogates too), so that a bad character is a broken rule and no other error.
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _too_long(length: int) -> SpiffeIdError:
    return SpiffeIdError("ID10", f"the SPIFFE ID has {length} bytes; at most {MAX_ID_BYTES} are allowed")


def _first_stray(raw: bytes, marks: bytes) -> str:
    for offset, byte in enumerate(raw):
        if not (chr(byte).isascii() and chr(byte).isalnum()) and byte not in marks:
            return f"byte 0x{byte:02x} at offset {offset}"
    return "capitals"


def _shown(raw: bytes) -> str:
    """Quotes hostile bytes for a message: printable ASCII only, and not more of it than a line can bear."""
    shown = repr(raw[:_SHOWN_BYTES])[1:]
    return f"{shown}..." if len(raw) > _SHOWN_BYTES else shown
