"""One question to the application on loopback, over a connection of its own: HTTP with or without TLS, TCP, gRPC.

As a kubelet asks: any status from 200 to 399 is success, nothing is followed, of TLS the certificate is not looked at,
because what is on the other end is known by its port on loopback. The caller bounds the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h11

if TYPE_CHECKING:
    import ssl

HOST: Final = "127.0.0.1"
_READ: Final = 65_536
MAX_PROBE_BODY: Final = 10 * 1024
"""Of a probe's answer that is read before it is closed: as much as the kubelet reads."""

HEALTH_CHECK: Final = b"/grpc.health.v1.Health/Check"
SERVING: Final = 1


class AskError(Exception):
    """There is no answer, or none that can be read; a sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer by HTTP; `body` is cut at the asker's limit, and `is_cut` says so."""

    status: int
    content_type: str
    body: bytes
    is_cut: bool


async def ask_http(
    port: int,
    path: str,
    *,
    is_tls: bool = False,
    headers: Sequence[tuple[str, str]] = (),
    most: int = MAX_PROBE_BODY,
) -> Answer:
    """GET a path. Raises AskError."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ)
    given = {name.lower() for name, _ in headers}
    usual = [("host", f"{HOST}:{port}"), ("connection", "close"), ("accept", "*/*")]
    sent = [(name, value) for name, value in usual if name not in given] + list(headers)
    async with _connected(port, is_tls=is_tls) as (reader, writer):
        try:
            request = h11.Request(method="GET", target=path, headers=[(name, value) for name, value in sent])
            writer.write(connection.send(request) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            return await _answer(connection, reader, most)
        except (h11.LocalProtocolError, h11.RemoteProtocolError) as fault:
            raise AskError(f"port {port} answers no HTTP: {fault}") from fault


async def ask_tcp(port: int) -> None:
    """Open a connection and close it. Raises AskError."""
    async with _connected(port, is_tls=False):
        return


async def ask_grpc(port: int, service: str) -> int:
    """Ask grpc.health.v1.Health/Check for the status of a service; gives its number. Raises AskError."""
    # Imported by the first probe of this kind: few applications have one.
    import h2.config
    import h2.connection
    import h2.events
    import h2.exceptions

    http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    async with _connected(port, is_tls=False) as (reader, writer):
        http2.initiate_connection()
        stream = http2.get_next_available_stream_id()
        http2.send_headers(
            stream,
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", HEALTH_CHECK),
                (b":authority", f"{HOST}:{port}".encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                (b"user-agent", b"remora-probe"),
            ],
        )
        http2.send_data(stream, health_request(service), end_stream=True)
        writer.write(http2.data_to_send())
        await writer.drain()
        body, status, ended = b"", b"", False
        while not ended:
            data = await reader.read(_READ)
            if not data:
                raise AskError(f"port {port} closed before it answered the gRPC health check")
            try:
                events = http2.receive_data(data)
            except h2.exceptions.ProtocolError as fault:
                raise AskError(f"port {port} speaks no HTTP/2: {fault}") from fault
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    body = (body + (event.data or b""))[:MAX_PROBE_BODY]
                elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    status = next((value for name, value in event.headers or () if name == b"grpc-status"), status)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    raise AskError(f"port {port} refuses the gRPC health check")
            writer.write(http2.data_to_send())
            await writer.drain()
    if status != b"0":
        raise AskError(f"the gRPC health check ends with status {status.decode('ascii', 'replace') or 'none'}")
    return health_status(body)


def health_request(service: str) -> bytes:
    """Write a HealthCheckRequest as gRPC sends it: five bytes of frame, then field 1 with the name of the service.

    >>> health_request("")
    b'\\x00\\x00\\x00\\x00\\x00'
    """
    name = service.encode()
    length = len(name)
    size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    message = b"\x0a" + size + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def health_status(body: bytes) -> int:
    """Read the status of a HealthCheckResponse: 0 unknown, 1 serving, 2 not serving. Raises AskError.

    >>> health_status(bytes([0, 0, 0, 0, 2, 8, 1]))
    1
    """
    length = int.from_bytes(body[1:5], "big")
    message = body[5 : 5 + length]
    if len(body) < 5 or body[0] != 0 or len(message) != length:
        raise AskError("the answer to the gRPC health check is no message")
    if not message:
        return 0  # proto3 leaves out a field that is 0
    if len(message) != 2 or message[0] != 0x08 or message[1] > 127:
        raise AskError("the answer to the gRPC health check is no HealthCheckResponse")
    return message[1]


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader, most: int) -> Answer:
    status, content_type, body = 0, "", bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
            found = [value for name, value in event.headers if name == b"content-type"]
            content_type = found[0].decode("latin-1") if found else ""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > most:
                return Answer(status=status, content_type=content_type, body=bytes(body[:most]), is_cut=True)
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status=status, content_type=content_type, body=bytes(body), is_cut=False)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise AskError("the connection closed before an answer")


@contextlib.asynccontextmanager
async def _connected(port: int, *, is_tls: bool) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_connection(HOST, port, ssl=_any_certificate() if is_tls else None)
    except OSError as fault:  # TLS faults are OSErrors too
        raise AskError(f"port {port} takes no connection: {fault.strerror or fault}") from fault
    try:
        yield reader, writer
    except OSError as fault:
        raise AskError(f"port {port} broke off: {fault.strerror or fault}") from fault
    finally:
        writer.transport.abort()


def _any_certificate() -> ssl.SSLContext:
    import ssl  # of a sidecar that has no such probe it is a megabyte

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
