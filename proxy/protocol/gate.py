"""The strict gate: the law of what is a request and what is an answer.

Two parsers that read the same bytes differently are two doors into one house: the proxy judges one request and the
application serves another. The gate therefore accepts only what has one reading, and says no to the rest before
policy and before the application sees a byte. It is slow (about 80 µs) and it is the reference: `fast` may answer in
its place only with what the gate would have answered, which a differential test holds.

Invariants, numbered; each rejection below names the one that it keeps:

 1. **Every byte was looked at.** No control byte, no CR or LF alone, no NUL is in an accepted head. What goes out is
    written from the parsed head, never copied from received bytes.
 2. **One request line.** `METHOD SP target SP HTTP/1.x CRLF`, single spaces, version 1.0 or 1.1, nothing else.
 3. **One target.** Visible ASCII, no fragment; `/path`, `http(s)://authority/path` or `*` for OPTIONS.
 4. **One authority.** One Host line; an absolute-form target says the same as Host.
 5. **One length.** Content-Length once and only digits, or `Transfer-Encoding: chunked` once, never both, and never
    chunked with HTTP/1.0. All other codings are refused.
 6. **One meaning per field.** No folding, no white space around names, no `_` in the name of a request field.
 7. **Hop-by-hop stays on its hop**, and Connection cannot be used to strip a field by which somebody decides.
 8. **One path**: normalised once; policy judges, and the next hop gets, the same bytes.
 9. **An upgrade is asked for plainly** (GET, HTTP/1.1, no body, one protocol that does not carry HTTP), or not at all.
10. **A second parser agrees**: h11 reads the accepted bytes too, and a difference is a refusal.

    head bytes --1--> lines --2,3--> request line --6--> fields --4,5,7,9--> meaning --8--> RequestHead --10--> out

Deviations from RFC 9110 and 9112 are marked STRICTER or LOOSER where they stand. Answers of an upstream go through
the same rules, with one Reason for all faults: the client did nothing wrong, it gets 502.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from proxy.errors import ProtocolError, Reason
from proxy.protocol import referee
from proxy.protocol.fields import TOKEN, classify, is_authority, parse_field_line, refuse_forbidden_bytes
from proxy.protocol.path import PathNormalization, normalize_path
from proxy.protocol.stream import CHUNKED, UNTIL_CLOSE, Field, HeadLimits, Kind, RequestHead, ResponseHead

METHOD_MAX: Final = 20
"""Characters of a method: the longest registered one has 17 (UPDATEREDIRECTREF)."""
CONTENT_LENGTH_MAX: Final = 1 << 53
"""Body bytes: the largest integer that every parser, JavaScript's included, reads exactly."""
CONNECTION_OPTIONS_MAX: Final = 64
"""Elements of one Connection line: real ones have three; 30,000 would cost 40 ms."""

_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]*").fullmatch
_TARGET: Final = re.compile(rb"[\x21-\x7e]+").fullmatch
_PATH: Final = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:@/\\]*").fullmatch
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([^?]*)(.*)").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,16}").fullmatch
_PROTOCOL: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_CARRIES_HTTP: Final = (b"h2", b"http", b"tls")
"""Upgrades after which HTTP requests would travel inside the tunnel, unjudged."""
_NEVER_HOP: Final = frozenset(
    (
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"forwarded",
        b"origin",
        b"proxy-authorization",
        b"range",
        b"set-cookie",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)


class RequestLine(NamedTuple):
    """The three parts of a request line, each valid by itself."""

    method: bytes
    target: bytes
    version: bytes


class _Target(NamedTuple):
    authority: bytes | None
    path: bytes
    query: bytes


def parse_request_head(
    head: bytes, *, limits: HeadLimits, normalization: PathNormalization, stream: int = 1
) -> RequestHead:
    """Parse `head`, the bytes from the request line up to and including the empty line.

    Raises ProtocolError with the Reason of the first rule broken, in the order of the invariants.
    """
    lines = _split_head(head, limits)
    method, target, version = parse_request_line(lines[0])
    _count_fields(lines, limits)
    fields = [parse_field_line(line, underscores=False) for line in lines[1:]]
    where = _split_target(method, target)
    authority = _authority(fields, version, where.authority)
    declared, chunked = _declared_framing(fields, version)
    if method == b"TRACE" and (chunked or declared):
        # RFC 9110 section 9.3.8: a client must not send content with TRACE.
        raise ProtocolError("TRACE carries no content", Reason.FRAMING_CONFLICT)
    content_length = CHUNKED if chunked else declared or 0
    options = _connection_options(fields)
    upgrade = _upgrade(fields)
    wants_upgrade = b"upgrade" in options and version == b"1.1" and method == b"GET" and content_length == 0
    parsed = RequestHead(
        stream=stream,
        method=method,
        target=target,
        path=normalize_path(where.path, normalization),
        query=where.query,
        authority=authority,
        version=version,
        fields=_without_nominated(fields, options),
        content_length=content_length,
        has_length=declared is not None,
        keep_alive=_keeps_alive(options, version),
        expects_continue=_expects_continue(fields) and version == b"1.1" and content_length != 0,
        upgrade=upgrade if wants_upgrade and not upgrade.startswith(_CARRIES_HTTP) else b"",
    )
    referee.agree_on_request(head, parsed)
    return parsed


def parse_request_line(line: bytes) -> RequestLine:
    """Parse a request line without its CRLF; raises ProtocolError (RFC 9112 section 3, invariants 2 and 3)."""
    if line == b"PRI * HTTP/2.0":
        raise ProtocolError("the client speaks HTTP/2 without asking; use HTTP/1.1 here", Reason.HTTP2_NOT_SERVED)
    parts = line.split(b" ")
    # RFC 9112 section 3: STRICTER, white space other than the two single spaces is not repaired. HTTP/0.9 has one part
    # too few.
    if len(parts) != 3 or b"\t" in line or not parts[0]:
        raise ProtocolError("the request line is not `METHOD target HTTP/1.1`", Reason.REQUEST_LINE_INVALID)
    method, target, version = parts
    # STRICTER: HTTP/1.2 may be read as 1.1 by RFC 9110 section 2.5, but not by every server.
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ProtocolError(f"version {version[:16]!r} is not served; use HTTP/1.1", Reason.VERSION_UNSUPPORTED)
    # STRICTER: methods are case-sensitive (RFC 9110 section 9.1), but some applications take `get` for GET, and a
    # policy that names GET would not see it. No lower-case method is registered.
    if len(method) > METHOD_MAX or _METHOD(method) is None:
        raise ProtocolError(f"{method[:32]!r} is no method; methods are upper-case tokens", Reason.METHOD_INVALID)
    if method == b"CONNECT":
        raise ProtocolError("CONNECT would tunnel past policy; it is not served", Reason.METHOD_REFUSED)
    # RFC 3986 section 2: other bytes must be percent-encoded. LOOSER: `"<>[\]^`{|}` are let through in the query, as
    # browsers send them there. RFC 9112 section 3.2: a fragment is no part of a target.
    if _TARGET(target) is None or b"#" in target:
        raise ProtocolError("the target holds bytes that must be percent-encoded", Reason.TARGET_INVALID)
    return RequestLine(method, target, version[5:])


def parse_response_head(head: bytes, *, request_method: bytes, limits: HeadLimits, stream: int = 1) -> ResponseHead:
    """Parse `head`, the bytes from the status line up to and including the empty line.

    Raises ProtocolError with UPSTREAM_RESPONSE_INVALID and side "upstream".
    """
    try:
        return _parse_response_head(head, request_method, limits, stream)
    except ProtocolError as fault:
        raise ProtocolError(str(fault), Reason.UPSTREAM_RESPONSE_INVALID, side="upstream") from fault


def _parse_response_head(head: bytes, request_method: bytes, limits: HeadLimits, stream: int) -> ResponseHead:
    lines = _split_head(head, limits)
    # RFC 9112 section 4. LOOSER: the space before an absent reason phrase may be absent too.
    status_line = _STATUS_LINE(lines[0])
    if status_line is None:
        raise ProtocolError(f"{lines[0][:64]!r} is no status line", Reason.HEADER_INVALID)
    version, status = status_line[1], int(status_line[2])
    _count_fields(lines, limits)
    fields = [parse_field_line(line, underscores=True) for line in lines[1:]]
    declared, chunked = _declared_framing(fields, version)
    options = _connection_options(fields)
    keep_alive = _keeps_alive(options, version)
    upgrade = b""
    if status < 200 or status == 204:
        # RFC 9110 section 8.6 and RFC 9112 section 6.1: neither field may stand here. An interim answer with one is
        # refused, because the next head would begin at a disputed place; a 204 ends its connection.
        if chunked or declared:
            if status != 204:
                raise ProtocolError(f"an answer {status} announces a body", Reason.FRAMING_CONFLICT)
            keep_alive = False
        content_length, declared = 0, None
        if status == 101:
            upgrade = _upgrade(fields)
            if b"upgrade" not in options or not upgrade or version != b"1.1":
                raise ProtocolError("an answer 101 names no protocol", Reason.UPGRADE_INVALID)
    elif status == 304 or request_method == b"HEAD":
        content_length = 0
    elif chunked:
        content_length = CHUNKED
    elif declared is not None:
        content_length = declared
    else:
        content_length, keep_alive = UNTIL_CLOSE, False
    parsed = ResponseHead(
        stream=stream,
        status=status,
        reason_phrase=status_line[3] or b"",
        version=version,
        fields=_without_nominated(fields, options),
        content_length=content_length,
        declared_length=declared,
        keep_alive=keep_alive,
        upgrade=upgrade,
    )
    referee.agree_on_response(head, parsed, request_method)
    return parsed


def _split_head(head: bytes, limits: HeadLimits) -> list[bytes]:
    """Check size and bytes (invariant 1) and return the lines without CRLF, the empty one left out."""
    if len(head) > limits.head_bytes:
        raise ProtocolError(f"the head is larger than {limits.head_bytes} bytes", Reason.HEAD_TOO_LARGE)
    refuse_forbidden_bytes(head)
    if not head.endswith(b"\r\n\r\n"):
        raise ProtocolError("the head does not end in an empty line", Reason.REQUEST_INCOMPLETE)
    return head[:-4].split(b"\r\n")


def _count_fields(lines: list[bytes], limits: HeadLimits) -> None:
    if len(lines) - 1 > limits.fields:
        raise ProtocolError(f"the head holds more than {limits.fields} fields", Reason.TOO_MANY_HEADERS)


def _split_target(method: bytes, target: bytes) -> _Target:
    """Take a target apart (RFC 9112 section 3.2, invariant 3); the path is not normalised yet."""
    if target.startswith(b"/"):
        path, mark, query = target.partition(b"?")
        return _Target(None, _checked_path(path), mark + query)
    if target == b"*" and method == b"OPTIONS":
        return _Target(None, b"*", b"")
    absolute = _ABSOLUTE(target)
    if absolute is None:
        raise ProtocolError(
            "the target is neither `/path` nor `http://host/path`; authority-form belongs to CONNECT",
            Reason.TARGET_INVALID,
        )
    authority, path, query = absolute.groups()
    # STRICTER: RFC 9112 section 3.2.2 lets a client name any authority that Host allows; user information and an empty
    # host (RFC 9110 section 4.2.1) are refused by the same rule as in Host.
    if not is_authority(authority):
        raise ProtocolError("the target names no valid authority", Reason.TARGET_INVALID)
    if not path:
        # RFC 9112 section 3.2.4: OPTIONS without path and query asks about the server as a whole.
        path = b"*" if method == b"OPTIONS" and not query else b"/"
    return _Target(authority, _checked_path(path), query)


def _checked_path(path: bytes) -> bytes:
    """Refuse bytes that no path may hold (RFC 3986 section 3.3): path templates do not match them, so a DENY would not.

    LOOSER: `\\` passes, because normalisation turns it into `/`.
    """
    if _PATH(path) is None:
        raise ProtocolError("the path holds bytes that must be percent-encoded", Reason.TARGET_INVALID)
    return path


def _authority(fields: list[Field], version: bytes, from_target: bytes | None) -> bytes:
    """Find the one authority (RFC 9112 sections 3.2 and 3.2.2, invariant 4); b"" for HTTP/1.0 that names none."""
    hosts = [field.value for field in fields if field.name == b"host"]
    if len(hosts) > 1:
        raise ProtocolError("Host is sent more than once", Reason.HOST_REPEATED)
    if not hosts:
        if version == b"1.1":
            raise ProtocolError("HTTP/1.1 needs a Host header", Reason.HOST_MISSING)
        return from_target or b""
    # STRICTER: an empty Host is allowed for targets without authority; no application can be meant by it here.
    if not is_authority(hosts[0]):
        raise ProtocolError(f"{hosts[0][:64]!r} is no host with an optional port", Reason.HOST_INVALID)
    if from_target is None:
        return hosts[0]
    # STRICTER: RFC 9112 section 3.2.2 has the target win; the application behind may let Host win.
    if from_target.lower() != hosts[0].lower():
        raise ProtocolError("Host and the target name different authorities", Reason.HOST_INVALID)
    return from_target


def _declared_framing(fields: list[Field], version: bytes) -> tuple[int | None, bool]:
    """Return (Content-Length or None, whether chunked) of one message (RFC 9112 section 6, invariant 5)."""
    lengths = [field.value for field in fields if field.name == b"content-length"]
    codings = [field.value for field in fields if field.name == b"transfer-encoding"]
    # STRICTER than RFC 9112 section 6.3 rule 5: equal lengths are not merged into one.
    if len(lengths) > 1:
        raise ProtocolError("Content-Length is sent more than once", Reason.CONTENT_LENGTH_REPEATED)
    if len(codings) > 1:
        raise ProtocolError("Transfer-Encoding is sent more than once", Reason.TRANSFER_ENCODING_REPEATED)
    # STRICTER than section 6.3 rule 3: both fields together are not repaired.
    if lengths and codings:
        raise ProtocolError("Content-Length and Transfer-Encoding exclude each other", Reason.FRAMING_CONFLICT)
    if codings:
        # Section 6.1: a 1.0 sender does not know chunked, so its framing is faulty.
        if version == b"1.0":
            raise ProtocolError("HTTP/1.0 knows no Transfer-Encoding", Reason.FRAMING_CONFLICT)
        if codings[0].lower() != b"chunked":
            raise ProtocolError(
                f"Transfer-Encoding {codings[0][:32]!r} is not served, only chunked", Reason.TRANSFER_ENCODING_INVALID
            )
        return None, True
    if not lengths:
        return None, False
    if _DIGITS(lengths[0]) is None or int(lengths[0]) > CONTENT_LENGTH_MAX:
        raise ProtocolError(
            f"Content-Length {lengths[0][:32]!r} is no number up to 2^53", Reason.CONTENT_LENGTH_INVALID
        )
    return int(lengths[0]), False


def _connection_options(fields: list[Field]) -> frozenset[bytes]:
    """Collect the connection options in lower case (RFC 9110 section 7.6.1, invariant 7).

    STRICTER: an option that names a field for all recipients, or one of a mesh, is refused, not obeyed: a client
    could else strip what a proxy before us has added (`Connection: x-forwarded-for`).
    """
    options: set[bytes] = set()
    for field in fields:
        if field.name != b"connection":
            continue
        elements = field.value.split(b",")
        if len(elements) > CONNECTION_OPTIONS_MAX:
            raise ProtocolError("Connection holds too many options", Reason.HEADER_INVALID)
        for element in elements:
            option = element.strip(b" \t").lower()
            if not option:
                continue
            if TOKEN(option) is None:
                raise ProtocolError("Connection holds something that is no token", Reason.HEADER_INVALID)
            if option in _NEVER_HOP or _is_framing_or_reserved(option):
                raise ProtocolError(
                    f"Connection names {option.decode('ascii')}, which is not hop-by-hop", Reason.HEADER_INVALID
                )
            options.add(option)
    return frozenset(options)


def _is_framing_or_reserved(name: bytes) -> bool:
    return classify(name) in (Kind.FRAMING, Kind.RESERVED)


def _without_nominated(fields: list[Field], options: frozenset[bytes]) -> list[Field]:
    """Mark as hop-by-hop the fields that Connection names."""
    return [field._replace(kind=Kind.HOP) if field.name in options else field for field in fields]


def _keeps_alive(options: frozenset[bytes], version: bytes) -> bool:
    """RFC 9112 section 9.3: `close` wins, 1.1 persists, 1.0 persists when asked."""
    if b"close" in options:
        return False
    return version == b"1.1" or b"keep-alive" in options


def _expects_continue(fields: list[Field]) -> bool:
    """RFC 9110 section 10.1.1: 100-continue is the only expectation; raises EXPECTATION_UNKNOWN for others."""
    expectations = [field.value.lower() for field in fields if field.name == b"expect"]
    if any(expectation != b"100-continue" for expectation in expectations):
        raise ProtocolError("only `Expect: 100-continue` can be met", Reason.EXPECTATION_UNKNOWN)
    return bool(expectations)


def _upgrade(fields: list[Field]) -> bytes:
    """Return the one protocol that Upgrade names, in lower case, or b"" (RFC 9110 section 7.8, invariant 9).

    STRICTER: a list of protocols is refused; nobody but the application could choose, and the gate must know which.
    """
    protocols = [field.value for field in fields if field.name == b"upgrade"]
    if not protocols:
        return b""
    if len(protocols) > 1 or _PROTOCOL(protocols[0]) is None:
        raise ProtocolError("Upgrade must name exactly one protocol", Reason.UPGRADE_INVALID)
    return protocols[0].lower()
