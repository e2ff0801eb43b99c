"""A plain forwarder on asyncio, as small as one can be: what Python costs before it does any of a sidecar's work.

    python -m benchmarks.plain LISTEN_PORT NEXT_PORT [--loop asyncio] [--accept-tls DIRECTORY] [--dial-tls DIRECTORY]

It joins each connection with a new one to the next port and copies bytes. It looks at nothing: no HTTP, no policy, no
log, and no identity beyond a name in a certificate. So it is no rival but a floor, and it is named as such wherever
its figure stands. With TLS, by the loop's own transports, it is also the helper that stands in for the other half of a
single hop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from benchmarks.configs import CALLED

ALPN: Final = ("istio-http/1.1", "istio", "http/1.1")
"""What a caller offers: names that a sidecar takes, and one for servers of HTTP that know no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From which port to which other, and with which TLS contexts."""

    listen: int
    next: int
    accept: ssl.SSLContext | None = None
    dial: ssl.SSLContext | None = None


class _Half(asyncio.Protocol):
    """One side of a pair; what it receives the other one writes."""

    def __init__(self) -> None:
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_reading()

    def join(self, other: asyncio.Transport) -> None:
        self.other = other
        for data in self.early:
            other.write(data)
        self.early.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


def context(identity: Path, *, server: bool) -> ssl.SSLContext:
    """Make the TLS context of an identity's files: 1.3 only, both ends verified, nothing resumed."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(identity / "tls.crt", identity / "tls.key")
    made.load_verify_locations(identity / "ca.crt")
    if server:
        made.num_tickets = 0
    else:
        made.set_alpn_protocols(ALPN)
    return made


async def forward(way: Way) -> None:
    """Forward every connection of one port to the next, both on loopback, until SIGTERM."""
    loop = asyncio.get_running_loop()
    dialling: set[asyncio.Task[None]] = set()

    async def dial(half: _Half) -> None:
        name = CALLED if way.dial is not None else None
        try:
            transport, other = await loop.create_connection(
                _Half, "127.0.0.1", way.next, ssl=way.dial, server_hostname=name
            )
        except OSError:
            if half.transport is not None:
                half.transport.close()
            return
        if half.transport is None or half.transport.is_closing():
            transport.close()
            return
        other.join(half.transport)
        half.join(transport)

    class Accepted(_Half):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(dial(self))
            dialling.add(task)
            task.add_done_callback(dialling.discard)

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(Accepted, "127.0.0.1", way.listen, ssl=way.accept, backlog=1024)
    await stopped.wait()
    server.close()


def main(argv: Sequence[str]) -> int:
    """Run it on the loop that the sidecar uses, or on asyncio's own."""
    parser = argparse.ArgumentParser(prog="benchmarks.plain", description="A plain forwarder.")
    parser.add_argument("listen", type=int)
    parser.add_argument("next", type=int)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--accept-tls", type=Path)
    parser.add_argument("--dial-tls", type=Path)
    options = parser.parse_args(argv)
    way = Way(
        listen=options.listen,
        next=options.next,
        accept=context(options.accept_tls, server=True) if options.accept_tls else None,
        dial=context(options.dial_tls, server=False) if options.dial_tls else None,
    )
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(forward(way))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
