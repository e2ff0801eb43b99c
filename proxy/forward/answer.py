"""Answers of our own, in the next hop's place: a denial, a fault of the client, a next hop that failed."""

from __future__ import annotations

from typing import Final

from proxy.errors import RemoraError
from proxy.interfaces import RequestRecord
from proxy.protocol.headers import local_response
from proxy.protocol.stream import RequestHead

_REALM_LENGTH: Final = 256
"""Bytes of the address in a challenge, as Envoy cuts it: a caller can make a path as long as a head may be."""


def own_answer(
    failure: RemoraError, record: RequestRecord, head: RequestHead | None, *, otherwise: int, close: bool
) -> bytes:
    """Write the whole answer and note status and size in `record`.

    `otherwise` is the status where the Reason fixes none. A Reason with a body of its own tells the caller that and no
    more; else it is told the sentence. `head` is None for a request that could not be read.
    """
    consequence = failure.reason.consequence
    record.response_code = status = consequence.status or otherwise
    body = consequence.body or f"{failure.reason.word}: {failure}\n".encode("utf-8", "backslashreplace")
    extra = b"x-request-id: %b\r\n" % record.request_id.encode("latin-1")
    if status == 401 and head is not None:
        extra += b"www-authenticate: %b\r\n" % challenge(head)
    head_request = head is not None and head.method == b"HEAD"
    record.bytes_sent = 0 if head_request else len(body)
    return local_response(status, body, extra=extra, close=close, head_request=head_request)


def challenge(head: RequestHead) -> bytes:
    """Write the challenge of a 401 (RFC 6750 section 3), its realm the address asked for, as Envoy does.

    The address is that of plain HTTP, as the application wrote it: mutual TLS is the sidecars'. The query stays out, a
    token may stand in it; what could end the quoted string is escaped, what no header may hold is left out. A client
    of HTTP/1.0 that named no host is told no address.
    """
    if not head.authority:
        return b'Bearer error="invalid_token"'
    address = (b"http://" + head.authority + head.path)[:_REALM_LENGTH]
    safe = bytes(byte for byte in address if 0x20 <= byte < 0x7F)
    quoted = safe.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'Bearer realm="%b", error="invalid_token"' % quoted
