"""A plain forwarder on asyncio, as small as one can be: what Python costs before it does any of a sidecar's work.

    python -m benchmarks.plain LISTEN_PORT NEXT_PORT

It joins each connection with a new one to the next port and copies bytes. It looks at nothing: no TLS, no HTTP, no
policy, no log. So it is no rival but a floor, and it is named as such wherever its figure stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import cast


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

    def join(self, other: asyncio.Transport) -> None:
        self.other = other
        for data in self.early:
            other.write(data)
        self.early.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


async def forward(listen: int, next_port: int) -> None:
    """Forward every connection on `listen` to `next_port`, both on loopback, until SIGTERM."""
    loop = asyncio.get_running_loop()
    dialling: set[asyncio.Task[None]] = set()

    async def dial(half: _Half) -> None:
        transport, other = await loop.create_connection(_Half, "127.0.0.1", next_port)
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
    server = await loop.create_server(Accepted, "127.0.0.1", listen)
    await stopped.wait()
    server.close()


def main(argv: Sequence[str]) -> int:
    """Run it on the loop that the sidecar uses."""
    import uvloop

    listen, next_port = (int(word) for word in argv)
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(forward(listen, next_port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
