"""The listening sockets of all workers, held by the supervisor: each address has one socket for each worker.

The kernel chooses a socket for each new connection and queues it there. A worker accepts on its own, by a copy of the
descriptor; when it dies, the queue stays, because the supervisor's copy is open, and the worker in its place goes on.
"""

from __future__ import annotations

import socket

from proxy.accept.listener import open_listeners
from proxy.config import Address, Config
from proxy.traffic import Key, listeners_of, open_all


class Sockets:
    """Opens and closes them, by the configuration in force."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._held: dict[Key, list[socket.socket]] = {}
        self._fresh: set[Key] = set()

    def apply(self, config: Config, file: str) -> None:
        """Make them those that `config` wants. Raises ConfigError that names `file`; then nothing has changed."""
        wanted = listeners_of(config)
        opened = open_all({key: at for key, at in wanted.items() if key not in self._held}, file, self._open_some)
        self._fresh |= opened.keys()
        self._held |= opened
        for key in [key for key in self._held if key not in wanted]:
            self._close(key)
        self._held = {key: self._held[key] for key in wanted}

    def judge_again(self) -> None:
        """Nothing is connected here."""

    def of(self, slot: int, *, only_fresh: bool) -> list[tuple[Key, int]]:
        """List the descriptors of one worker, those that were opened since `settle` or all."""
        return [
            (key, socks[slot].fileno()) for key, socks in self._held.items() if not only_fresh or key in self._fresh
        ]

    def settle(self) -> None:
        """Note that every worker was given what is fresh."""
        self._fresh.clear()

    def ports(self, direction: str) -> list[int]:
        """Tell the ports of one direction, in the order of the configuration."""
        return [int(socks[0].getsockname()[1]) for key, socks in self._held.items() if key[0] == direction]

    def close(self, direction: str) -> None:
        """Close those of one direction; they accept until workers have closed theirs too."""
        for key in [key for key in self._held if key[0] == direction]:
            self._close(key)

    def _open_some(self, at: Address) -> list[socket.socket]:
        return open_listeners(at.host, at.port, self._workers)

    def _close(self, key: Key) -> None:
        for sock in self._held.pop(key):
            sock.close()
        self._fresh.discard(key)
