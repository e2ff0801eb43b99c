"""Tells what a connection speaks where nothing can be peeked at: inside TLS, or on a wire that reads already.

The bytes seen are taken off the wire: they belong to the stream and go on to whoever reads it next.
"""

from __future__ import annotations

import asyncio

from proxy.detect.first_bytes import Detected, detect
from proxy.interfaces import Wire
from proxy.types import Protocol


class Detector:
    """Receives first bytes until it is known what they are; `found` gives the protocol and the bytes seen."""

    __slots__ = ("_seen", "_wire", "found")

    def __init__(self, loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
        self._wire = wire
        self._seen = b""
        self.found: asyncio.Future[tuple[Protocol, bytes]] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        self._seen += data
        detected = detect(self._seen)
        if detected is not Detected.NEED_MORE:
            self._wire.pause()
            self._decide(Protocol.HTTP if detected is Detected.HTTP1 else Protocol.TCP)

    def end_received(self) -> None:
        self._decide(Protocol.TCP)

    def wire_lost(self, reason: OSError) -> None:
        if not self.found.done():
            self.found.set_exception(reason)

    def write_ready(self) -> None:
        """Nothing is written before the protocol is known."""

    def give_up(self) -> None:
        """Take silence, or half of something, for opaque."""
        self._wire.pause()
        self._decide(Protocol.TCP)

    def _decide(self, protocol: Protocol) -> None:
        if not self.found.done():
            self.found.set_result((protocol, self._seen))
