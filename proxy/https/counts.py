"""Counts what happens at the door of a port with TLS."""

from __future__ import annotations

from proxy.errors import Reason


class DoorCounts:
    """Handshakes by listener and result, connections turned away, and whether mounted files are rejected by kind."""

    __slots__ = ("handshakes", "rejected", "turned_away")

    def __init__(self) -> None:
        self.handshakes: dict[tuple[str, Reason], int] = {}
        self.rejected: dict[str, bool] = {}
        """Of each kind of mounted files: whether their content is rejected and an older one serves."""
        self.turned_away = 0

    def handshake(self, listener: str, reason: Reason) -> None:
        """Count a handshake by its result."""
        self.handshakes[listener, reason] = self.handshakes.get((listener, reason), 0) + 1
