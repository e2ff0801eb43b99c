"""Every limit and every deadline of the sidecar, in one table.

A row gives the default, the bounds within which it may be set, its unit, what it limits and the `Reason` that is on
record when it is reached. Defaults, validation of the `limits:` section and the table of the documentation all come
from these rows, so they cannot disagree. Where a number follows another proxy's default, a user who moves from there
meets no surprise.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Final

from proxy.constants import NODE_KEEP_ALIVE, POD_GRACE_PERIOD
from proxy.errors import Reason

_KEY: Final = "limit"


class Unit(enum.Enum):
    """What a limit counts, and how it is written in the configuration file."""

    COUNT = "count"
    BYTES = "bytes"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One row: `default`, `minimum` and `maximum` are in `unit`, `reason` is what is recorded when it is reached.

    `meaning` says what it limits, `why` where the default comes from and what breaks above and below.
    """

    name: str
    default: float
    minimum: float
    maximum: float
    unit: Unit
    reason: Reason
    meaning: str
    why: str


def _row(unit: Unit, default: float, minimum: float, maximum: float, reason: Reason, meaning: str, why: str) -> Any:
    """Declare a field of `Limits` that carries its row; `limits_table` fills the name in."""
    row = Limit(
        name="", default=default, minimum=minimum, maximum=maximum, unit=unit, reason=reason, meaning=meaning, why=why
    )
    return dataclasses.field(default=default, metadata={_KEY: row})


def _count(default: int, minimum: int, maximum: int, reason: Reason, meaning: str, why: str) -> Any:
    return _row(Unit.COUNT, default, minimum, maximum, reason, meaning, why)


def _bytes(default: int, minimum: int, maximum: int, reason: Reason, meaning: str, why: str) -> Any:
    return _row(Unit.BYTES, default, minimum, maximum, reason, meaning, why)


def _seconds(default: float, minimum: float, maximum: float, reason: Reason, meaning: str, why: str) -> Any:
    return _row(Unit.SECONDS, default, minimum, maximum, reason, meaning, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits in force: counts and bytes are int, times are float seconds."""

    inbound_connections: int = _count(
        10_000,
        1,
        1_000_000,
        Reason.CONNECTION_LIMIT,
        "open connections from peers; one more is closed at once",
        "an idle mTLS connection costs up to 40 KiB, so all of them 400 MiB; above, memory or descriptors go first",
    )
    outbound_connections: int = _count(
        10_000,
        1,
        1_000_000,
        Reason.CONNECTION_LIMIT,
        "open connections from the application; one more is closed at once",
        "counted apart from inbound, so that peers cannot stop the application from calling out",
    )
    handshakes: int = _count(
        512,
        1,
        100_000,
        Reason.HANDSHAKE_LIMIT,
        "inbound TLS handshakes in progress at once; one more is closed at once",
        "half a second of handshakes of one core; far below, a burst after a roll-out is refused",
    )
    handshake_timeout: float = _seconds(
        10.0,
        0.1,
        300,
        Reason.HANDSHAKE_TIMEOUT,
        "time for a TLS handshake, as server and as client, and for first bytes where plaintext is taken",
        "three lost flights are sent again within 7 s; longer only helps who holds handshakes open",
    )
    detection_timeout: float = _seconds(
        0.2,
        0.01,
        60,
        Reason.DETECTION_TIMEOUT,
        "time to wait for first bytes on a `protocol: auto` port, and of plaintext where the server speaks first",
        "every connection of a server-first protocol pays it once; below a round trip, HTTP is taken for opaque",
    )
    head_timeout: float = _seconds(
        30.0,
        0.1,
        3_600,
        Reason.HEAD_TIMEOUT,
        "time from the first byte of a request's head to its last",
        "a slow client is served, one that feeds a byte now and then is not",
    )
    head_bytes: int = _bytes(
        61_440,
        1_024,
        1_048_576,
        Reason.HEAD_TOO_LARGE,
        "size of a head, start line and fields together",
        "Envoy's 60 KiB; large cookies and tokens fit",
    )
    head_fields: int = _count(
        100,
        10,
        10_000,
        Reason.TOO_MANY_HEADERS,
        "number of fields of a head",
        "Envoy's 100",
    )
    http_idle_timeout: float = _seconds(
        3_600.0,
        1,
        86_400,
        Reason.IDLE_TIMEOUT,
        "time that an HTTP connection may stay open between requests",
        "Envoy's hour: callers pool connections, and a new one costs them a handshake",
    )
    stream_idle_timeout: float = _seconds(
        300.0,
        1,
        86_400,
        Reason.IDLE_TIMEOUT,
        "time without a byte in either direction while a request is unfinished",
        "Envoy's five minutes; event streams send something more often",
    )
    tcp_idle_timeout: float = _seconds(
        3_600.0,
        1,
        604_800,
        Reason.IDLE_TIMEOUT,
        "time without a byte in either direction on an opaque or upgraded connection",
        "Envoy's hour; a database pool that keeps idle connections longer must ping",
    )
    service_timeout: float = _seconds(
        15.0,
        0.001,
        86_400,
        Reason.UPSTREAM_TIMEOUT,
        "time from the end of a request to the head of its answer, for services that give no `timeout`",
        "Envoy's 15 s; it does not run while a body streams, so downloads and event streams live on",
    )
    upstream_connect_timeout: float = _seconds(
        5.0,
        0.01,
        300,
        Reason.UPSTREAM_CONNECT_TIMEOUT,
        "time to open a TCP connection to the application or to an endpoint",
        "Envoy's 5 s: two lost SYNs are sent again within 3 s; longer hides a dead endpoint",
    )
    upstream_idle_timeout: float = _seconds(
        4.0,
        0.1,
        3_600,
        Reason.IDLE_TIMEOUT,
        "time that a pooled connection to the application may wait for its next request",
        f"below the {NODE_KEEP_ALIVE:.0f} s after which Node.js, uvicorn and Apache close: above it, requests get lost",
    )
    mesh_idle_timeout: float = _seconds(
        60.0,
        0.1,
        3_600,
        Reason.IDLE_TIMEOUT,
        "time that a pooled mTLS connection to an endpoint may wait for its next request",
        "sidecars keep connections for an hour; a handshake saved is worth more than a socket",
    )
    pool_connections: int = _count(
        1_024,
        1,
        100_000,
        Reason.POOL_LIMIT,
        "upstream connections per endpoint, busy and idle",
        "Envoy's 1,024; it bounds what a slow endpoint can tie up",
    )
    pool_waiters: int = _count(
        1_024,
        0,
        100_000,
        Reason.POOL_LIMIT,
        "requests that may wait for a connection of a full pool; one more is answered 503 at once",
        "Envoy's 1,024 pending requests",
    )
    pool_wait_timeout: float = _seconds(
        1.0,
        0.001,
        300,
        Reason.POOL_LIMIT,
        "time that a request waits for a connection of a full pool",
        "longer, and a queue hides an overload until every caller has timed out",
    )
    pool_max_age: float = _seconds(
        3_600.0,
        1,
        86_400,
        Reason.UPSTREAM_CLOSED,
        "age after which a pooled connection takes no further request",
        "moves load to endpoints that came later, as DNS answers change",
    )
    buffer_high_water: int = _bytes(
        65_536,
        16_384,
        16_777_216,
        Reason.BUFFER_LIMIT,
        "bytes held for a slow peer at which its source is paused",
        "four TLS records; below one (16 KiB) a connection stops and starts for each",
    )
    buffer_low_water: int = _bytes(
        16_384,
        0,
        16_777_216,
        Reason.BUFFER_LIMIT,
        "bytes held at which a paused source goes on",
        "one TLS record, so that the peer is not left waiting",
    )
    buffer_limit: int = _bytes(
        1_048_576,
        65_536,
        268_435_456,
        Reason.BUFFER_LIMIT,
        "bytes that one connection may hold in all; beyond, it is closed",
        "pausing keeps honest peers far below; this bounds what pausing cannot",
    )
    close_timeout: float = _seconds(
        1.0,
        0.01,
        60,
        Reason.DOWNSTREAM_CLOSED,
        "time that a closing connection is read on, so that a last alert or answer arrives",
        "a close with unread bytes sends a reset, and a reset makes the peer discard what we said last",
    )
    drain_timeout: float = _seconds(
        25.0,
        0,
        3_600,
        Reason.DRAIN_DEADLINE,
        "time after SIGTERM for what runs to finish; then it is cut",
        f"within the {POD_GRACE_PERIOD:.0f} s of a pod, with time left to write the last records",
    )
    accept_backoff: float = _seconds(
        0.1,
        0.001,
        10,
        Reason.FILE_DESCRIPTORS_EXHAUSTED,
        "time that accepting rests after the process ran out of file descriptors",
        "without it a listener that stays readable spins the loop",
    )


def limits_table() -> tuple[Limit, ...]:
    """Give every row, in the order of the documentation."""
    return tuple(dataclasses.replace(field.metadata[_KEY], name=field.name) for field in dataclasses.fields(Limits))


def limits_markdown() -> str:
    """Write the table as `proxy/README.md` carries it; a test holds the two together."""
    lines = [
        "| limit | default | from | to | what it limits | why this default | Reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in limits_table():
        numbers = (written(row.default, row.unit), written(row.minimum, row.unit), written(row.maximum, row.unit))
        cells = (f"`{row.name}`", *numbers, row.meaning, row.why, f"`{row.reason.word}`")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def written(value: float, unit: Unit) -> str:
    """Write a limit as a user would: `10000`, `60KiB`, `0.2s`."""
    if unit is Unit.SECONDS:
        return f"{value:g}s"
    if unit is Unit.BYTES:
        for size, suffix in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{int(value) // size}{suffix}"
    return str(int(value))
