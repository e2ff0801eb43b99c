"""One TLS connection on one non-blocking socket: OpenSSL reads and writes the descriptor, this file says what it meant.

Purpose. Everything above sees bytes, an end, or a broken connection. Everything below is OpenSSL's state machine. The
file between must make sure that (a) nobody is admitted who was not judged, (b) a truncated stream never looks like a
finished one, (c) a refusal reaches the peer as an alert and the log as a Reason, and (d) moving a record costs little
more than its cryptography: at 32 connections the calls of this file are made 40,000 times a second.

    HANDSHAKE --handshake() is None--> OPEN ----read() == b""----> OPEN, peer ended (we may go on writing)
        |                               |  \\--close_write()------> OPEN, we ended (the peer may go on)
        |                               |
        '--HandshakeError               '--OSError--> BROKEN: nothing more can be read or written
                     \\                               |
                      '------- release() -----------'--> FREE: OpenSSL's memory is given back; the socket is not ours

Facts true in each state:

    HANDSHAKE  `peer` raises; the verdict is in the context's weak map, where the verify callback finds it.
    OPEN       `peer` is the identity that the callback took from the verified chain of *this* handshake; where the
               generation admits anonymous clients, `maybe_peer` is None for one that showed no certificate.
    BROKEN     the exception said why; OpenSSL has sent an alert if the fault was the peer's.
    FREE       every call but `release` raises TypeError (OpenSSL never sees a freed pointer).

Invariants:

1. **No identity, no connection.** `handshake` returns None only if the callback left an identity, OpenSSL's own result
   is "ok" and the session was not resumed. A resumed session would bring an identity that nobody judged now.
2. **Only close_notify is an end.** `read` returns b"" for close_notify alone. TCP's end without it is a
   ConnectionResetError: an attacker can forge a FIN, and only close_notify says that nothing is missing (RFC 8446
   section 6.1).
3. **What blocked is repeated.** After `write` returned 0, or fewer bytes than given, the record is encrypted already:
   the next `write` must begin with the same bytes, and be no shorter than what was left. (The buffer may have moved.)
4. **Whole records per read.** Each is asked for with 16 KiB, the most that a record holds, and OpenSSL does not read
   ahead: when `read` returns, nothing decrypted is left inside that a poll on the descriptor would not show. So a
   level-triggered loop reads once per event, and `pending` is 0. A full record says that more come: then up to
   `RECORDS` are taken at once (bulk over two hops: 17 to 22 % less CPU with larger plain reads, because the next
   hop is sent 256 KiB and not 16). What stops that and is not "nothing now" is kept for the next `read`, which no
   event may ask for: `read_again` does. Once, right after the handshake, read without an event: bytes may have come
   with the last flight.
5. **The shared buffer is never held.** Bytes are copied out of it before `read` returns; one buffer serves all
   connections of an event loop.
6. **No exceptions in ordinary flow.** "Nothing now" is None and "full" is 0; exceptions are for the end of things.
7. **No cycles.** A Session refers to its generation, its socket's OpenSSL object and its verdict; none refers back.
   Dropping the last reference frees it without the collector.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

from OpenSSL import SSL

from certs.spiffe import SpiffeId
from proxy.constants import ALPN_MESH, READ_SIZE
from proxy.errors import HandshakeError, Reason
from proxy.handshake import faults
from proxy.handshake.binding import (
    ERROR_SYSCALL,
    ERROR_WANT_READ,
    ERROR_WANT_WRITE,
    ERROR_ZERO_RETURN,
    QueueEntry,
    broken_connection_error,
    drain_error_queue,
    ffi,
    lib,
)
from proxy.handshake.contexts import Material
from proxy.handshake.verification import Verdict, address_of, der_of
from proxy.interfaces import Want
from proxy.types import Generation, PeerIdentity, Protocol

_from_buffer = ffi.from_buffer


class Session:
    """TLS on one non-blocking socket, which stays the caller's: neither closed nor polled here.

    `protocol` chooses the ALPN names. `expected` are the identities that may answer (None: whoever is trusted).
    `server_name` is the SNI that a client sends, a host name (UnicodeError if it cannot be one); an IP address is not
    sent (RFC 6066 section 3). After the handshake `peer`, `alpn` (b"" if none), `sni`, `group` and `version` say what
    was agreed on.
    """

    __slots__ = (
        "_behind",
        "_buffer",
        "_calls",
        "_connection",
        "_handle",
        "_peer",
        "_places",
        "_read_record",
        "_server_side",
        "_ssl",
        "_verdict",
        "_write_closed",
        "_write_record",
        "alpn",
        "generation",
        "group",
        "material",
        "read_again",
        "sni",
        "version",
        "wants",
    )

    def __init__(
        self,
        material: Material,
        sock: Any,
        *,
        server_side: bool,
        protocol: Protocol,
        expected: frozenset[SpiffeId] | None = None,
        server_name: str = "",
    ) -> None:
        context = material.server_context(protocol) if server_side else material.client_context(protocol)
        calls = material.calls
        connection = SSL.Connection(context.ssl, sock)
        # The callbacks live in the generation, and C holds pointers to them: `material` must outlive the SSL object.
        self.material = material
        self.generation: Generation = material.generation
        self._connection: SSL.Connection | None = connection
        self._ssl: Any = connection._ssl
        self._calls = calls
        self._handle: Any = calls.handle(connection)
        self._buffer = calls.buffer
        self._places = calls.places
        self._behind: OSError | None = None
        self.read_again = False
        self._read_record = calls.read
        self._write_record = calls.write
        self._server_side = server_side
        self._peer: PeerIdentity | None = None
        self._verdict: Verdict | None = Verdict(expected)
        # A weak map: the entry goes with the verdict, when the handshake ends or this object does.
        context.verdicts[address_of(self._ssl)] = self._verdict
        self._write_closed = False
        self.wants = Want.READ
        self.alpn = b""
        self.sni = ""
        self.group = ""
        self.version = ""
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if server_name and not _is_address(server_name):
                connection.set_tlsext_host_name(server_name.encode("idna"))

    @property
    def peer(self) -> PeerIdentity:
        """Who the peer is. Raises RuntimeError before the handshake is done."""
        if self._peer is None:
            raise RuntimeError("nobody knows the peer before the handshake is done")
        return self._peer

    @property
    def maybe_peer(self) -> PeerIdentity | None:
        """Who the peer is; None before the handshake is done, and for a client without a certificate."""
        return self._peer

    def peer_certificate(self) -> bytes | None:
        """Gives the leaf that the peer showed, as DER; None for a client without one. Call it before `release`."""
        certificate = lib.SSL_get_peer_certificate(self._ssl)
        if certificate == ffi.NULL:
            return None
        try:
            return der_of(certificate)
        finally:
            lib.X509_free(certificate)

    # --- handshake ---

    def handshake(self) -> Want | None:
        """Goes on with the handshake: None when it is done, else what to wait for before the next call.

        Raises HandshakeError with our Reason when we refuse the peer (OpenSSL has then written the alert), with
        PEER_REJECTED_US when the peer refused us, and with HANDSHAKE_PEER_CLOSED when it went away.
        """
        result = lib.SSL_do_handshake(self._ssl)
        if result == 1:
            self._admit()
            return None
        error = lib.SSL_get_error(self._ssl, result)
        if error == ERROR_WANT_READ:
            self.wants = Want.READ
            return Want.READ
        if error == ERROR_WANT_WRITE:
            self.wants = Want.WRITE
            return Want.WRITE
        raise self._handshake_failure(error)

    def _admit(self) -> None:
        connection, verdict = self._connection, self._take_verdict()
        if connection is None:
            raise TypeError("the session was released")
        resumed = lib.SSL_session_reused(self._ssl) != 0
        verified = lib.SSL_get_verify_result(self._ssl) == 0 and verdict.rejection is None
        known = verdict.identity is not None or self._is_anonymous(verdict)
        if not known or resumed or not verified:
            raise HandshakeError("a handshake ended without a verdict on the peer; refused", Reason.INTERNAL_ERROR)
        self._peer = verdict.identity
        self.wants = Want.READ
        self.alpn = _one_of(connection.get_alpn_proto_negotiated())
        self.group = sys.intern(connection.get_group_name() or "")
        self.version = sys.intern(connection.get_protocol_version_name())
        if self._server_side:
            self.sni = sys.intern((connection.get_servername() or b"").decode("ascii", "backslashreplace"))
        if self._handle is not connection:
            # The direct calls need the SSL object alone; without pyOpenSSL's around it an idle one is 0.7 KiB smaller.
            self._connection = None

    def _is_anonymous(self, verdict: Verdict) -> bool:
        """Tells whether a client came without a certificate where that is admitted; nothing about it was verified."""
        admitted = self._server_side and self.material.admits_anonymous and verdict.rejection is None
        return admitted and self.peer_certificate() is None

    def _handshake_failure(self, error: int) -> HandshakeError:
        verdict, number, entries = self._take_verdict(), int(ffi.errno), drain_error_queue()
        rejection = verdict.rejection
        if rejection is not None:
            return HandshakeError(rejection.message, rejection.reason, rejection.presented)
        if error in (ERROR_SYSCALL, ERROR_ZERO_RETURN):
            return faults.closed_in_handshake(number if error == ERROR_SYSCALL else 0)
        failure = faults.failed_handshake(entries)
        if failure.reason is Reason.ALPN_UNKNOWN and verdict.offered is not None:
            offered = ", ".join(repr(name)[2:-1] for name in verdict.offered[:8])
            served = ", ".join(name.decode("ascii") for name in verdict.served)
            return HandshakeError(
                f"the peer offers only ALPN names that are not served here ({offered}); this port serves {served}; "
                "compare `protocol` of the port with what the caller speaks",
                Reason.ALPN_UNKNOWN,
            )
        if verdict.identity is not None and not failure.presented:
            failure.presented = str(verdict.identity.spiffe_id)
        return failure

    def _take_verdict(self) -> Verdict:
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            raise RuntimeError("this handshake has ended before")
        return verdict

    # --- bytes ---

    def limit_reads(self, size: int) -> None:
        """Lets one read give no more than `size` bytes, or one record."""
        self._places = self._calls.places[: max(size // READ_SIZE - 1, 0)]

    def read(self) -> bytes | None:
        """Reads a record, or several that stand full: bytes, None for nothing now (see `wants`), b"" for close_notify.

        Raises ConnectionResetError when the connection broke, TCP's end without close_notify included, and its
        subclass `faults.RefusedByPeer` when the peer refused our certificate after our handshake was done.
        """
        if self.read_again:
            return self._read_behind()
        size = self._read_record(self._handle, self._buffer, READ_SIZE)
        if size > 0:
            if size == READ_SIZE:
                size = self._read_on()
            data: bytes = self._calls.view[:size]
            return data
        return self._read_stopped(size)

    def _read_on(self) -> int:
        """Puts further records behind a full one, and counts all bytes."""
        total = READ_SIZE
        for place in self._places:
            size = self._read_record(self._handle, place, READ_SIZE)
            if size <= 0:
                try:
                    self.read_again = self._read_stopped(size) is not None
                except OSError as failure:
                    self._behind, self.read_again = failure, True
                break
            total += size
            if size < READ_SIZE:
                break
        return total

    def _read_behind(self) -> bytes:
        """Tells what stopped the read before: close_notify, or a break."""
        self.read_again = False
        failure, self._behind = self._behind, None
        if failure is not None:
            raise failure
        return b""

    def _read_stopped(self, size: int) -> bytes | None:
        error = self._calls.error(self._handle, size)
        if error == ERROR_WANT_READ:
            self.wants = Want.READ
            return None
        if error == ERROR_WANT_WRITE:
            self.wants = Want.WRITE
            return None
        if error == ERROR_ZERO_RETURN:
            return b""
        raise self._broken(error)

    def write(self, data: bytes | memoryview) -> int:
        """Writes what the socket takes and returns how many bytes that was, 0 when it would block (see `wants`).

        `data` must not be empty. After fewer bytes than given the next write begins with the rest (invariant 3).
        Raises BrokenPipeError or ConnectionResetError when the connection broke.
        """
        size = len(data)
        taken = self._write_record(self._handle, data if type(data) is bytes else _from_buffer(data), size)
        if taken == size:
            return size
        if taken > 0:
            return self._write_rest(memoryview(data), taken)
        return self._write_stopped(taken)

    def _write_rest(self, data: memoryview, taken: int) -> int:
        # SSL_write makes one record per call, so large data goes round here until the socket is full.
        size = len(data)
        while taken < size:
            count = self._write_record(self._handle, _from_buffer(data[taken:]), size - taken)
            if count <= 0:
                self._write_stopped(count)
                break
            taken += count
        return taken

    def _write_stopped(self, result: int) -> int:
        error = self._calls.error(self._handle, result)
        if error == ERROR_WANT_WRITE:
            self.wants = Want.WRITE
            return 0
        if error == ERROR_WANT_READ:
            self.wants = Want.READ
            return 0
        raise self._broken(error)

    def pending(self) -> int:
        """Counts decrypted bytes that OpenSSL still holds: 0 after a read, by invariant 4."""
        return int(lib.SSL_pending(self._ssl))

    def close_write(self) -> bool:
        """Sends close_notify: we end, the peer may go on. False when it would block and must be called again.

        Call it when `write` has taken everything. Raises OSError when the connection broke.
        """
        if self._write_closed:
            return True
        result = lib.SSL_shutdown(self._ssl)
        if result < 0:
            error = lib.SSL_get_error(self._ssl, result)
            if error in (ERROR_WANT_WRITE, ERROR_WANT_READ):
                self.wants = Want.WRITE if error == ERROR_WANT_WRITE else Want.READ
                return False
            number, entries = int(ffi.errno), drain_error_queue()
            raise _broken_connection(error, number, entries)
        # A second SSL_shutdown would read, and take the peer's bytes for a fault: it is never called.
        self._write_closed = True
        return True

    def release(self) -> None:
        """Gives OpenSSL's memory back. The socket stays open and the caller's; may be called again."""
        self._handle = self._ssl = self._connection = self._verdict = None

    def _broken(self, error: int) -> OSError:
        number, entries = self._calls.errno(), self._calls.entries()
        return _broken_connection(error, number, entries)


def _broken_connection(error: int, number: int, entries: list[QueueEntry]) -> OSError:
    if error == ERROR_SYSCALL and number:
        return broken_connection_error(number, "the connection broke under TLS")
    if error == ERROR_SYSCALL and not entries:
        return faults.truncated()
    return faults.broken_connection(entries)


def _one_of(alpn: bytes) -> bytes:
    """Give the constant for a name that we know: an idle connection keeps no copy."""
    return next((name for name in ALPN_MESH if name == alpn), alpn)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
