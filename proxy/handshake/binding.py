"""Reaches the OpenSSL that pyOpenSSL carries, where pyOpenSSL's own face is too slow or does not reach.

Two things live here. The *calls of the byte path*: `DirectCalls` are the binding's SSL_read and SSL_write on one
buffer, `PublicCalls` the same by pyOpenSSL's public `recv` and `send`; a `Session` cannot tell which it has. And the
*error queue*, read out into values.

Why not the public face alone: `recv` allocates a C buffer and `send` builds a context manager for each call; over two
hops that was 22 µs per request, more than the cryptography. Why keep it: the binding is not a promised interface.
`select_calls` tries the direct calls in a whole handshake and conversation with itself, once per process, and takes
the public face when anything is not as expected.

The error queue. OpenSSL writes errors to a queue per thread and forgets nothing by itself. Before OpenSSL 4.0 an old
entry made SSL_get_error report a fault for a call that would only have blocked, so every call had to be preceded by
ERR_clear_error. With OpenSSL 4.0 SSL_get_error looks at the call alone (the trial proves it: it plants an entry), so
the byte path clears nothing; SSL_do_handshake empties the queue itself; and whoever reads it leaves it empty.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from proxy.constants import READ_SIZE

lib: Any = _lib
ffi: Any = _ffi

ERROR_NONE: Final[int] = lib.SSL_ERROR_NONE
ERROR_SSL: Final[int] = lib.SSL_ERROR_SSL
ERROR_SYSCALL: Final[int] = lib.SSL_ERROR_SYSCALL
ERROR_WANT_READ: Final[int] = lib.SSL_ERROR_WANT_READ
ERROR_WANT_WRITE: Final[int] = lib.SSL_ERROR_WANT_WRITE
ERROR_ZERO_RETURN: Final[int] = lib.SSL_ERROR_ZERO_RETURN

RECORDS: Final = 16
"""Records that one read may give, 256 KiB: as many as a plain socket is asked for when bytes come in bulk."""

_LIBRARY_SHIFT: Final = 23
_REASON_MASK: Final = 0x7FFFFF
_LIBRARY_SSL: Final = 20
_LAST_REASON: Final = 1200
"""Above the last reason number of OpenSSL's TLS library: received alerts are 1000 + the alert's number."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One entry of the error queue: the library (20 is TLS), the number of the reason in it and OpenSSL's words."""

    library: int
    number: int
    text: str

    @property
    def of_tls(self) -> bool:
        return self.library == _LIBRARY_SSL


def drain_error_queue() -> list[QueueEntry]:
    """Empties this thread's error queue; oldest entry first."""
    entries: list[QueueEntry] = []
    while code := lib.ERR_get_error():
        words = lib.ERR_reason_error_string(code)
        text = ffi.string(words).decode("ascii", "replace") if words != ffi.NULL else f"error {code:#x}"
        entries.append(QueueEntry((code >> _LIBRARY_SHIFT) & 0xFF, code & _REASON_MASK, text))
    return entries


class Calls(Protocol):
    """The calls of the byte path, in the manner of C.

    `read` and `write` return the bytes moved, or 0 and less; then `error` says what kind of stop it was
    (`ERROR_WANT_READ`, ...), and for ERROR_SSL and ERROR_SYSCALL `entries` and `errno` say more. Bytes read lie in
    `view`, valid until the next read with the same calls. `places` are where further whole records may be put behind
    the first, which goes to `buffer`; there may be none.
    """

    view: Any
    buffer: Any
    places: tuple[Any, ...]
    read: Callable[[Any, Any, int], int]
    write: Callable[[Any, Any, int], int]
    error: Callable[[Any, int], int]

    def handle(self, connection: SSL.Connection) -> Any: ...
    def entries(self) -> list[QueueEntry]: ...
    def errno(self) -> int: ...


class DirectCalls:
    """SSL_read and SSL_write of the binding, with one buffer that all connections of a generation share.

    One event loop may use one instance, and no two threads: the buffer holds bytes only until `Session.read` has
    copied them.
    """

    __slots__ = ("buffer", "error", "places", "read", "view", "write")

    def __init__(self) -> None:
        self.buffer: Any = ffi.new("char[]", RECORDS * READ_SIZE)
        self.view: Any = ffi.buffer(self.buffer, RECORDS * READ_SIZE)
        self.places: tuple[Any, ...] = tuple(self.buffer + number * READ_SIZE for number in range(1, RECORDS))
        self.read: Callable[[Any, Any, int], int] = lib.SSL_read
        self.write: Callable[[Any, Any, int], int] = lib.SSL_write
        self.error: Callable[[Any, int], int] = lib.SSL_get_error

    def handle(self, connection: SSL.Connection) -> Any:
        """The SSL pointer."""
        return connection._ssl

    def entries(self) -> list[QueueEntry]:
        return drain_error_queue()

    def errno(self) -> int:
        return int(ffi.errno)


class PublicCalls:
    """The same by pyOpenSSL's public `recv` and `send`: slower, and promised to stay."""

    __slots__ = ("_entries", "_errno", "_error", "_numbers", "buffer", "error", "places", "read", "view", "write")

    def __init__(self) -> None:
        self.buffer: Any = None
        self.places: tuple[Any, ...] = ()
        self.view: Any = b""
        self.read: Callable[[Any, Any, int], int] = self._read
        self.write: Callable[[Any, Any, int], int] = self._write
        self.error: Callable[[Any, int], int] = self._kind
        self._error = ERROR_NONE
        self._errno = 0
        self._entries: list[QueueEntry] = []
        self._numbers: dict[str, int] = {}

    def handle(self, connection: SSL.Connection) -> Any:
        """The pyOpenSSL connection itself."""
        return connection

    def entries(self) -> list[QueueEntry]:
        taken, self._entries = self._entries, []
        return taken

    def errno(self) -> int:
        return self._errno

    def _kind(self, _connection: SSL.Connection, _result: int) -> int:
        return self._error

    def _read(self, connection: SSL.Connection, _buffer: Any, size: int) -> int:
        try:
            self.view = connection.recv(size)
        except SSL.Error as error:
            return self._stopped(error)
        return len(self.view)

    def _write(self, connection: SSL.Connection, data: Any, size: int) -> int:
        try:
            return connection.send(ffi.buffer(data, size) if isinstance(data, ffi.CData) else data)
        except SSL.Error as error:
            return self._stopped(error)

    def _stopped(self, error: SSL.Error) -> int:
        self._errno = 0
        self._entries = []
        match error:
            case SSL.WantReadError():
                self._error = ERROR_WANT_READ
            case SSL.WantWriteError():
                self._error = ERROR_WANT_WRITE
            case SSL.ZeroReturnError():
                self._error = ERROR_ZERO_RETURN
            case SSL.SysCallError():
                self._error = ERROR_SYSCALL
                number = error.args[0] if error.args else 0
                self._errno = number if isinstance(number, int) and number > 0 else 0
            case _:
                self._error = ERROR_SSL
                self._entries = [self._entry(text) for _, _, text in (error.args[0] if error.args else ())]
        return -1

    def _entry(self, text: str) -> QueueEntry:
        # The public exception has words only; the numbers are found again by asking OpenSSL for its words.
        if not self._numbers:
            for number in range(100, _LAST_REASON):
                words = lib.ERR_reason_error_string((_LIBRARY_SSL << _LIBRARY_SHIFT) | number)
                if words != ffi.NULL:
                    self._numbers.setdefault(ffi.string(words).decode("ascii", "replace"), number)
        number = self._numbers.get(text, 0)
        return QueueEntry(_LIBRARY_SSL if number else 0, number, text)


def select_calls() -> Calls:
    """Makes the calls for one generation: direct ones if they passed their trial, else the public ones."""
    return DirectCalls() if direct_calls_work() else PublicCalls()


@functools.cache
def direct_calls_work() -> bool:
    """Tries the direct calls once per process in a conversation over a socket pair; takes about 3 ms.

    False when anything is missing from the binding or behaves in another way than this package relies on.
    """
    try:
        return _trial(DirectCalls())
    except (AttributeError, TypeError, ValueError, OSError, SSL.Error):
        return False


def _trial(calls: DirectCalls) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        server = SSL.Connection(_trial_context(), ours)
        server.set_accept_state()
        client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), theirs)
        client.set_connect_state()
        for end in (client, server, client, server, client):
            try:
                end.do_handshake()
            except SSL.WantReadError:
                continue
        handle, peer = calls.handle(server), calls.handle(client)
        # An old entry in the queue must not turn "would block" into a fault.
        lib.ERR_put_error(_LIBRARY_SSL, 0, 1, b"trial", 1)
        result = calls.read(handle, calls.buffer, READ_SIZE)
        blocked = calls.error(handle, result)
        drain_error_queue()
        sent = os.urandom(1000)
        written = calls.write(peer, sent, len(sent))
        received = calls.read(handle, calls.buffer, READ_SIZE)
        seen = calls.view[: max(received, 0)]
        part = ffi.from_buffer(memoryview(sent)[1:])
        written_part = calls.write(handle, part, len(sent) - 1)
        answer = client.recv(READ_SIZE)
        lib.SSL_shutdown(peer)
        ended = calls.error(handle, calls.read(handle, calls.buffer, READ_SIZE))
        return (
            (result, blocked, ended) == (-1, ERROR_WANT_READ, ERROR_ZERO_RETURN)
            and (written, received, seen) == (len(sent), len(sent), sent)
            and (written_part, answer) == (len(sent) - 1, sent[1:])
        )


def _trial_context() -> SSL.Context:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=1))
        .sign(key, SHA256())
    )
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context


def broken_connection_error(number: int, text: str) -> OSError:
    """Makes the OSError of an errno (BrokenPipeError, ConnectionResetError, ...); 0 counts as a reset."""
    return OSError(number or errno.ECONNRESET, text)
