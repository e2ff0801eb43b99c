"""Measures what TLS itself costs: records encrypted and decrypted in memory, where nothing is sent or received.

Before each record the gate reads a head, a hundred microseconds of other code, so that caches are about as they are on
a hop: in a loop of its own a record costs half.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from benchmarks import configs
from benchmarks.heads import BROWSER
from benchmarks.peers import tls_context
from benchmarks.processes import BenchError
from certs.memory import MemoryAuthority
from proxy.handshake.binding import DirectCalls
from proxy.protocol.gate import parse_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits

RECORD_BYTES: Final = 512
"""About a head with what a hop adds. Between 256 bytes and a kilobyte a record costs the same within a tenth."""
_RECORDS: Final = 500
_LIMITS: Final = HeadLimits(head_bytes=61_440, fields=100)
_SIZE: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsCost:
    """Nanoseconds of one record of RECORD_BYTES: the call of the library, its cryptography and its bookkeeping."""

    encrypt_ns: float
    decrypt_ns: float


def tls_in_memory(memory: MemoryAuthority) -> TlsCost:
    """Measure, by the calls that the sidecar makes. Raises BenchError when no connection comes about."""
    client, server = (
        SSL.Connection(tls_context(memory.svid(configs.NAMESPACE, account), memory.bundle, server=is_server), None)
        for account, is_server in ((configs.CALLER, False), (configs.CALLED, True))
    )
    client.set_connect_state()
    server.set_accept_state()
    _shake_hands(client, server)
    calls = DirectCalls()
    writing, reading = calls.handle(client), calls.handle(server)
    data = bytes(RECORD_BYTES)

    def encrypt() -> int:
        return calls.write(writing, data, RECORD_BYTES)

    def decrypt() -> int:
        return calls.read(reading, calls.buffer, 16_384)

    clock = _median(lambda: RECORD_BYTES)
    encrypting = _median(encrypt)
    _carry(client, server)
    return TlsCost(encrypt_ns=encrypting - clock, decrypt_ns=_median(decrypt) - clock)


def _median(call: Callable[[], int]) -> float:
    """Time each of many calls, with other work before each. Raises BenchError when one moves too few bytes."""
    head = BROWSER.head(42)
    times = []
    for _ in range(_RECORDS):
        parse_request_head(head, limits=_LIMITS, normalization=PathNormalization.BASE)
        began = time.perf_counter_ns()
        moved = call()
        times.append(time.perf_counter_ns() - began)
        if moved != RECORD_BYTES:
            raise BenchError(f"{moved} of {RECORD_BYTES} bytes went through a TLS connection in memory")
    return statistics.median(times)


def _shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    for _ in range(4):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            _carry(end, other)
    try:
        client.recv(1)  # session tickets
    except SSL.WantReadError:
        return
    raise BenchError("a TLS connection in memory begins with data that nobody sent")


def _carry(end: SSL.Connection, other: SSL.Connection) -> None:
    while True:
        try:
            other.bio_write(end.bio_read(_SIZE))
        except SSL.WantReadError:
            return
